import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import type { Test } from 'tap';
import { buildImage, noise } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { TestAnswer, TestMirror } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { bucket, credentials, startS3 } from '../fixtures/s3.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const skip = hasRedis ? false : 'redis-server is not installed';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'private' });
const child = image.children[0]!;
const held = [image.index, child.manifest, child.config, ...child.layers];
const nowhere = blobOf(noise('in no repository', 5000));

/** What is asked for, below a repository: all of it exists in the private one, and is cached. */
const targets = {
  tag: 'manifests/1',
  index: `manifests/${image.index.digest}`,
  manifest: `manifests/${child.manifest.digest}`,
  config: `blobs/${child.config.digest}`,
  layer: `blobs/${child.layers[0]!.digest}`,
  referrers: `referrers/${child.manifest.digest}`,
  tags: 'tags/list',
};

/** The same of something that no repository has: what is told of it may be told of anything. */
const nothing: Record<keyof typeof targets, string> = {
  tag: 'manifests/2',
  index: `manifests/${nowhere.digest}`,
  manifest: `manifests/${nowhere.digest}`,
  config: `blobs/${nowhere.digest}`,
  layer: `blobs/${nowhere.digest}`,
  referrers: `referrers/${nowhere.digest}`,
  tags: 'tags/list',
};

const repositories = {
  private: (rest: string) => `/v2/up/team/private/${rest}`,
  'private, by namespace': (rest: string) => `/v2/team/private/${rest}?ns=up`,
  'private, with a platform': (rest: string) => `/p/linux-amd64/v2/up/team/private/${rest}`,
  'private, with a platform behind': (rest: string) => `/v2/p/linux-amd64/up/team/private/${rest}`,
  public: (rest: string) => `/v2/up/team/public/${rest}`,
  'of another registry': (rest: string) => `/v2/other/team/private/${rest}`,
};

const logins: Record<string, string | undefined> = {
  anonymous: undefined,
  bob: 'bob:b',
  'with a wrong password': 'alice:x',
};

const methods: Record<string, { method: 'GET' | 'HEAD'; headers(digest: string): Record<string, string> }> = {
  GET: { method: 'GET', headers: () => ({}) },
  HEAD: { method: 'HEAD', headers: () => ({}) },
  'GET of a range': { method: 'GET', headers: () => ({ range: 'bytes=0-9' }) },
  'GET of an end': { method: 'GET', headers: () => ({ range: 'bytes=-9' }) },
  'GET beyond the end': { method: 'GET', headers: () => ({ range: 'bytes=99999999-' }) },
  'GET with its ETag': { method: 'GET', headers: (digest) => ({ 'if-none-match': `"${digest}"` }) },
};

/** Headers that say something of the content. */
const telling = ['etag', 'docker-content-digest', 'content-range', 'accept-ranges', 'narrows-cache', 'narrows-view'];

interface Stage {
  readonly registries: readonly TestRegistry[];
  readonly replicas: Record<string, TestMirror>;
}

/** The config and the layers: documents are small, and left to the other tiers. */
const keptFar = 1 + child.layers.length;

/** Replicas that hold all of the private image: in memory and on disk, on disk alone, in Redis alone, in S3 alone. */
async function prepare(t: Test): Promise<Stage> {
  const [up, other] = [await startRegistry(), await startRegistry()];
  t.teardown(up.close);
  t.teardown(other.close);
  up.putImage('team/private', '1', image);
  up.put('team/public', blobOf(noise('open to all', 3000)));
  const redis = await startRedis(t);
  const folder = await temporaryFolder(t);
  const htpasswd = join(folder, 'users');
  await writeFile(
    htpasswd,
    ['alice:a', 'bob:b'].map((one) => `${one.slice(0, -2)}:${hashSync(one.at(-1)!, 4)}\n`).join(''),
  );
  const store = await temporaryFolder(t);
  const s3 = await startS3(t);
  const start = async (at?: string, tiers: object = { redis: { url: redis.url, timeout: '5s' } }) =>
    startTestMirror(t, {
      upstreams: { up: up.url, other: other.url },
      ...(at !== undefined && { store: at }),
      config: {
        access: { mode: 'basic', htpasswd, pull: ['anonymous'] },
        repositories: [{ name: 'up/team/private', pull: ['alice'] }],
        cache: { ...tiers, s3: { bucket, endpoint: s3.url, pathStyle: true, ...credentials, minBlobSize: '1B' } },
        limits: { wrongPasswords: 100_000 },
      },
    });
  const first = await start(store);
  for (const rest of Object.values(targets)) await readAsAlice(t, first, rest);
  while ((await s3.keys()).length < keptFar) await delay(5);
  const [disk, shared, far] = [await start(store), await start(), await start(undefined, {})];
  return { registries: [up, other], replicas: { 'memory and disk': first, disk, Redis: shared, S3: far } };
}

async function readAsAlice(t: Test, replica: TestMirror, rest: string): Promise<TestAnswer> {
  const path = repositories['private, with a platform'](rest);
  const answer = await replica.get(path, { authorization: basic('alice:a'), accept });
  t.equal(answer.status, 200, `alice reads ${rest}`);
  return answer;
}

/** The tag or digest that is asked for. */
function nameIn(rest: string): string {
  return rest.split('/')[1]!;
}

/** What a stranger may see of an answer; what varies with the time and the address is left out. */
function seenOf({ status, headers, body }: TestAnswer, name: string) {
  const { date: _date, 'x-request-id': _id, ...rest } = headers;
  return { status, headers: rest, body: body.toString().replaceAll(name, 'NAME') };
}

void t.test('1. no reader without a right gets a byte, a size or an ETag', { skip }, async (t) => {
  const { registries, replicas } = await prepare(t);
  let cells = 0;
  const leaks: string[] = [];
  for (const [where, replica] of Object.entries(replicas)) {
    for (const [who, login] of Object.entries(logins)) {
      const headers = { accept, ...(login !== undefined && { authorization: basic(login) }) };
      for (const [name, pathIn] of Object.entries(repositories)) {
        for (const [what, rest] of Object.entries(targets)) {
          for (const [how, { method, headers: conditions }] of Object.entries(methods)) {
            const ask = (of: string) => {
              const all = { ...headers, ...conditions(nameIn(of)) };
              return method === 'GET' ? replica.get(pathIn(of), all) : replica.head(pathIn(of), all);
            };
            const answer = await ask(rest);
            cells += 1;
            const cell = `${where}: ${who}, ${how} ${what}, ${name}`;
            leaks.push(...leaksIn(answer, nameIn(rest)).map((leak) => `${cell}: ${leak}`));
            if (what === 'tags' || what === 'referrers') continue;
            const other = nothing[what as keyof typeof targets];
            const got = seenOf(answer, nameIn(rest));
            const expected = seenOf(await ask(other), nameIn(other));
            if (JSON.stringify(got) !== JSON.stringify(expected)) {
              leaks.push(`${cell}: it can be told from what does not exist: ${JSON.stringify([got, expected])}`);
            }
          }
        }
      }
    }
  }
  t.same(leaks.slice(0, 20), []);
  t.ok(cells >= 3000, `${cells} cells`);
  t.comment(`${cells} cells`);
  for (const { seen } of registries) {
    t.same(
      seen.filter(({ headers }) => headers.authorization !== undefined),
      [],
      'no login of a client goes upstream',
    );
  }
  for (const replica of Object.values(replicas)) {
    for (const rest of Object.values(targets)) await readAsAlice(t, replica, rest);
  }
});

function leaksIn({ status, headers, body }: TestAnswer, name: string): string[] {
  // An error says again what it was asked for.
  const text = body.toString('latin1').replaceAll(name, '');
  const sizes = held.map(({ bytes }) => String(bytes.length));
  return [
    ...(status < 400 && !isOpenAnswer(body) ? [`status ${status}`] : []),
    ...telling.filter((name) => headers[name] !== undefined).map((name) => `${name}: ${headers[name]}`),
    ...(sizes.includes(headers['content-length'] ?? '') ? [`the size ${headers['content-length']}`] : []),
    ...held.filter(({ bytes }) => text.includes(middleOf(bytes))).map(({ digest }) => `bytes of ${digest}`),
  ];
}

/** Documents begin and end alike. */
function middleOf(bytes: Buffer): string {
  const middle = Math.floor(bytes.length / 2);
  return bytes.toString('latin1', middle - 16, middle + 16);
}

/** A public repository has its own tags and referrers, which are none. */
function isOpenAnswer(body: Buffer): boolean {
  return /"(?:tags|manifests)":\s*\[\]/.test(body.toString()) || body.length === 0;
}
