import { join } from 'node:path';
import t from 'tap';
import { createRecords } from '../../src/cache/records.ts';
import { openSqliteRecords } from '../../src/cache/sqlite.ts';
import { NarrowsError } from '../../src/errors.ts';
import type { ErrorName } from '../../src/errors.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parseRepositoryName } from '../../src/oci/reference.ts';
import { createReferrers } from '../../src/pull/referrers.ts';
import type { Tags } from '../../src/pull/tags.ts';
import { createOfflineRegistry } from '../../src/upstream/offline.ts';
import type { Source } from '../../src/upstream/registries.ts';
import type { ListAnswer } from '../../src/upstream/upstream.ts';
import { buildImage, content, descriptor } from '../fixtures/images.ts';
import { containerdAccept as accept, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';
import { failureOf } from '../fixtures/servers.ts';

const image = buildImage({ platforms: ['linux/amd64'], seed: 'referred to' });
const subject = image.index.digest;
const base = '/v2/docker.io/library/app';
const [signature, sbom] = ['application/vnd.example.signature', 'application/vnd.example.sbom'] as const;

function referrer(artifactType: string) {
  const empty = descriptor(content({}, 'application/vnd.oci.empty.v1+json'));
  return content(
    {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      artifactType,
      config: empty,
      layers: [empty],
      subject: descriptor(image.index),
    },
    mediaTypes.ociManifest,
  );
}

async function stage(t: Teardown) {
  const clock = { ms: Date.parse('2026-01-01') };
  const upstream = await startRegistry();
  t.teardown(upstream.close);
  upstream.putImage('library/app', '1', image);
  const both = [signature, sbom].map(referrer);
  for (const one of both) upstream.put('library/app', one);
  const mirror = await startTestMirror(t, { upstreams: { 'docker.io': upstream.url }, now: () => clock.ms });
  const ask = (query = '') => mirror.get(`${base}/referrers/${subject}${query}`);
  const types = async (query = '') =>
    (await ask(query)).json<{ manifests: { artifactType: string }[] }>().manifests.map((one) => one.artifactType);
  const goDown = () => {
    upstream.script = (_, response) => {
      refuse(response, 503, 'X');
      return true;
    };
  };
  return { clock, upstream, mirror, ask, types, goDown, both };
}

void t.test('online each question goes to the upstream, and its answer through', async (t) => {
  const { upstream, ask, types } = await stage(t);
  t.match(await ask(), { status: 200, headers: { 'content-type': mediaTypes.ociIndex } });
  t.same(await types(), [signature, sbom]);
  t.equal(upstream.count('GET referrers'), 2);
  upstream.put('library/app', referrer('application/vnd.example.late'));
  t.same((await types()).length, 3, 'what is new is there at once');
});

void t.test(
  'while the upstream is in trouble, what it last said whole; also filtered, and after any time',
  async (t) => {
    for (const status of [500, 503, 429, 0]) {
      const { clock, upstream, types } = await stage(t);
      await types();
      upstream.script = (_, response) => {
        if (status === 0) response.destroy();
        else refuse(response, status, 'X');
        return true;
      };
      clock.ms += 400 * 86_400_000;
      t.same(await types(), [signature, sbom], String(status));
      t.same(await types(`?artifactType=${sbom}`), [sbom]);
    }
  },
);

void t.test('a part of a list is not remembered as the whole of it', async (t) => {
  const { upstream, ask, types, goDown } = await stage(t);
  t.same(await types(`?artifactType=${sbom}`), [sbom]);
  t.equal((await ask('?n=1')).status, 200);
  upstream.script = (_, response) => {
    response.writeHead(200, { link: `<${base}/referrers/${subject}?last=x>; rel="next"` });
    response.end(JSON.stringify({ schemaVersion: 2, manifests: [{ artifactType: signature }] }));
    return true;
  };
  const first = await ask();
  t.match(first.headers['link'], /last=x>; rel="next"/);
  goDown();
  t.equal((await ask()).status, 503);
});

void t.test('what is no list is told as trouble, and does not take the place of what is known', async (t) => {
  const { upstream, ask, types, goDown } = await stage(t);
  await types();
  upstream.script = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>please log in</html>');
    return true;
  };
  t.equal((await ask()).status, 502);
  goDown();
  t.same(await types(), [signature, sbom]);
});

void t.test('that nothing is said about what is here is remembered as well', async (t) => {
  const { upstream, mirror, types, goDown, both } = await stage(t);
  for (const { digest } of both) upstream.delete('library/app', digest);
  t.match(await mirror.get(`/v2/library/app/manifests/${subject}`), { status: 200 });
  t.same(await types(), []);
  goDown();
  t.same(await types(), []);
});

void t.test('without the API the fallback tag tells, and while the upstream is down what it last told', async (t) => {
  const { upstream, mirror, types, goDown, both } = await stage(t);
  const list = { ...descriptor(both[0]!), artifactType: signature };
  const index = content({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [list] }, mediaTypes.ociIndex);
  upstream.put('library/app', index, subject.replace(':', '-'));
  upstream.script = (seen, response) => {
    if (!seen.path.includes('/referrers/')) return false;
    refuse(response, 404, 'X');
    return true;
  };
  t.same(await types(), [signature]);
  goDown();
  t.same(await types(), [signature]);
  t.equal((await mirror.get(`${base}/manifests/1`, { accept })).status, 503, 'the upstream is down indeed');
});

void t.test('a refusal to read is told, not covered by what was known before', async (t) => {
  const { upstream, ask, types } = await stage(t);
  await types();
  upstream.script = (_, response) => {
    refuse(response, 403, 'DENIED');
    return true;
  };
  t.match(await ask(), { status: 403 });
});

type Page = (query: URLSearchParams) => ListAnswer | undefined;

/** The referrers of a registry that gives these pages, with a tag for where it gives none. */
async function prepare(t: Teardown, page: Page, tagged?: object) {
  const database = openSqliteRecords(join(await temporaryFolder(t), 'records.sqlite'), 2 ** 20);
  t.teardown(() => database.close());
  const records = createRecords({
    local: database.adapter,
    onTrouble(error) {
      throw error;
    },
  });
  const clock = { ms: 1_000_000 };
  const asked: string[] = [];
  const trouble: { kind?: ErrorName } = {};
  const repository = parseRepositoryName('library/app');
  const source: Source = {
    upstream: {
      ...createOfflineRegistry('docker.io'),
      async list(_, path, query) {
        asked.push(path + (query.size > 0 ? `?${query.toString()}` : ''));
        if (trouble.kind) throw new NarrowsError(trouble.kind, 'In trouble.');
        return page(query);
      },
    },
    repository,
    key: 'docker.io/library/app',
  };
  const resolve: Tags['resolve'] = async () => {
    if (!tagged) throw new NarrowsError('manifestUnknown', 'No such tag.');
    const bytes = Buffer.from(JSON.stringify(tagged));
    return { digest: subject, bytes, mediaType: mediaTypes.ociIndex, state: 'miss' };
  };
  const referrers = createReferrers({ records, now: () => clock.ms }, { resolve, ask: resolve });
  const all = (freshMs = 0) => referrers.all(source, subject, freshMs);
  return { clock, asked, trouble, all, referrers, source };
}

function listOf(from: number, count: number, next?: string): ListAnswer {
  const manifests = Array.from({ length: count }, (_, at) => ({ digest: `${from + at}` }));
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));
  return { bytes, ...(next !== undefined && { next: new URLSearchParams({ last: next }) }) };
}

const digests = (all: readonly object[]) => all.map((one) => (one as { digest: string }).digest);

void t.test('all: page after page, in their order', async (t) => {
  const { asked, all } = await prepare(t, (query) => {
    const at = Number(query.get('last') ?? 0);
    return listOf(at, 2, at < 4 ? String(at + 2) : undefined);
  });
  t.same(digests(await all()), ['0', '1', '2', '3', '4', '5']);
  const path = `referrers/${subject}`;
  t.same(asked, [path, `${path}?last=2`, `${path}?last=4`]);
});

void t.test('all: of more than a thousand the first thousand, and no page more than they need', async (t) => {
  const { asked, all } = await prepare(t, (query) => {
    const at = Number(query.get('last') ?? 0);
    return listOf(at, 400, String(at + 400));
  });
  const found = digests(await all());
  t.same([found.length, found[0], found.at(-1), asked.length], [1000, '0', '999', 3]);
});

void t.test('71. all: pages without an end come to one', async (t) => {
  for (const each of [0, 1]) {
    const { asked, all } = await prepare(t, () => listOf(0, each, 'again'));
    t.equal((await all()).length, 100 * each);
    t.equal(asked.length, 100);
  }
});

void t.test(
  '81. all: believed as long as was said, then asked again; a clock that went back is not fresh for ever',
  async (t) => {
    let count = 1;
    const { clock, asked, all } = await prepare(t, () => listOf(0, count));
    t.equal((await all(60_000)).length, 1);
    count = 2;
    clock.ms += 59_999;
    t.equal((await all(60_000)).length, 1);
    t.equal(asked.length, 1);
    clock.ms += 1;
    t.equal((await all(60_000)).length, 2);
    count = 3;
    clock.ms -= 60_000;
    t.equal((await all(60_000)).length, 3);
  },
);

void t.test('all: trouble is told: who wants all of it must not take a part for it', async (t) => {
  const { trouble, all } = await prepare(t, () => listOf(0, 1));
  await all();
  for (const kind of ['upstreamUnavailable', 'rateLimited', 'denied'] as const) {
    trouble.kind = kind;
    t.match(await failureOf(all()), { kind });
  }
});

void t.test('all: offline it is what was last known, else what the fallback tag says, else nothing', async (t) => {
  const known = await prepare(t, () => listOf(0, 2));
  await known.all();
  known.trouble.kind = 'manifestNotHeld';
  t.same(digests(await known.all()), ['0', '1']);
  const tagged = await prepare(t, () => undefined, { manifests: [{ digest: 'tagged' }] });
  tagged.trouble.kind = 'manifestNotHeld';
  t.same(digests(await tagged.all()), ['tagged']);
  const nothing = await prepare(t, () => undefined);
  nothing.trouble.kind = 'manifestNotHeld';
  t.same(await nothing.all(), []);
});

void t.test('all: without the API it is what the fallback tag says', async (t) => {
  const { all, trouble } = await prepare(t, () => undefined, { manifests: [{ digest: 'tagged' }, 7, null] });
  t.same(await all(), [{ digest: 'tagged' }], 'and what is no descriptor is left out');
  trouble.kind = 'upstreamRefused';
  t.same(digests(await all()), ['tagged']);
});
