import t from 'tap';
import type { Test } from 'tap';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { download } from '../fixtures/downloads.ts';
import { content, descriptor } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { addresses, names, oddities, rebindings, spellings, zone } from '../fixtures/lures.ts';
import type { TestAnswer } from '../fixtures/mirror.ts';
import { enterNamespace, privateAddresses, publicAddresses, touch } from '../fixtures/namespace.ts';
import { blobOf } from '../fixtures/registry.ts';
import { challenge, honest, honeypotPorts, pagedTo, redirect, startStage, ways } from '../fixtures/ssrf-stage.ts';
import type { Stage } from '../fixtures/ssrf-stage.ts';

// From here on this runs in a network of its own, or not at all.
const skip = enterNamespace();

const lures = [...addresses, ...spellings, ...names];
const all = [...lures, ...oddities];
/** As the mirror reads it: whatever the spelling, the URL standard makes one host of it, or none. */
const hostOf = (url: string) => URL.parse(url, 'http://x')?.hostname.replaceAll(/[[\]]/g, '') ?? '';
// Asking a second upstream that may go there shows that each lure leads somewhere.
const trusted = [...new Set(lures.map(([, url]) => hostOf(url)))];
// One for all tests: each asks for what none before it asked for.
const stage = skip === false ? startStage(t, zone, trusted) : undefined;

function test(name: string, body: (t: Test, stage: Stage) => Promise<void>): void {
  void t.test(name, { skip }, async (t) => body(t, (await stage)!));
}

interface Try {
  readonly repository: string;
  readonly held: Content;
  /** Where the public server has it. */
  readonly honestPath: string;
  readonly blob: string;
}

/** Its repository and its content are new: nothing that the mirror remembers is the answer. */
let tries = 0;
function fresh(upstream = 'evil.example'): Try {
  const number = ++tries;
  const held = honest(number);
  const repository = `${upstream}/try/r${number}`;
  return { repository, held, honestPath: `/honest/${number}`, blob: `${repository}/blobs/${held.digest}` };
}

/** An error of the registry API that a client can read, with nothing in it of what was behind the lure. */
function isRefusal(t: Test, answer: TestAnswer, what: string, isHead = false): void {
  t.ok(answer.status >= 400, `${what}: ${answer.status}`);
  if (isHead) return;
  t.match(answer.json(), { errors: [{ code: /^[A-Z_]+$/, message: String }] }, `${what}: is told as an error`);
  t.notMatch(answer.body.toString(), 'honeypot');
}

// Without these three, a suite in which nothing can be reached would be green as well.
test('6. the traps work: each honeypot counts who comes, and none is there yet', async (t, { honeypots }) => {
  t.same(await honeypots.taken(), []);
  for (const address of privateAddresses) for (const port of honeypotPorts) await touch(address, port);
  const all = privateAddresses.flatMap((address) => honeypotPorts.map((port) => `${address}:${port}`));
  t.same(await honeypots.taken(), all);
});

test('6. the lures work: whoever trusts their hosts ends in a honeypot', async (t, { serve, honeypots, registry }) => {
  for (const [what, url] of lures) {
    registry.script = redirect(url);
    // What comes is no blob with this digest, so the answer is cut.
    await download(`${serve.url}/v2/${fresh('trusting.example').blob}`);
    t.not((await honeypots.taken()).length, 0, `${what}: ${url}`);
  }
  t.equal(new Set(all.map(([, url]) => url)).size, all.length, `${all.length} different ones`);
});

test('6. what is public is gone to: redirects, chains, aliases, numbers, tokens', async (t, stage) => {
  const { ask, honeypots, registry } = stage;
  const { v4, v6 } = publicAddresses;
  for (const host of ['public.test', 'public-alias.test', 'public.test.', v4, `[${v6}]`]) {
    const { blob, held, honestPath } = fresh();
    registry.script = redirect(`http://${host}/hop?to=${encodeURIComponent(`http://${host}${honestPath}`)}`);
    t.same((await ask('GET', blob)).body, held.bytes, host);
  }
  const { blob, held } = fresh('token.example');
  registry.script = challenge('http://token.test/token', held);
  t.same((await ask('GET', blob)).body, held.bytes, 'a token service');
  t.same(await honeypots.taken(), []);
});

// Each lure in each way: what the mirror asks, and what it does with the answer, differs from one to the next.
for (const { what, rest, method = 'GET', answers, isRefusedUnseen, lay } of ways) {
  test(`6. ${what}: no lure is dialled, and each is an error`, async (t, stage) => {
    const { ask, honeypots, registry, names } = stage;
    names.asked();
    for (const [name, url] of all) {
      const { repository, held } = fresh();
      registry.forget();
      registry.script = lay(url, stage, held);
      const answer = await ask(method, `${repository}/${rest.replace('digest', held.digest)}`);
      t.same(await honeypots.taken(), [], `${name}: ${url}`);
      isRefusal(t, answer, name, method === 'HEAD');
      t.ok(
        registry.seen.some((seen) => seen.method === answers),
        'the lure was laid',
      );
    }
    if (isRefusedUnseen) t.same(names.asked(), [], 'no name was looked up');
  });
}

test('6. Location of a blob that the mirror has of another repository', async (t, { ask, honeypots, registry }) => {
  const known = fresh();
  registry.script = redirect(`http://public.test${known.honestPath}`);
  await ask('GET', known.blob);
  for (const [name, url] of all) {
    registry.forget();
    registry.script = redirect(url);
    const answer = await ask('GET', `${fresh().repository}/blobs/${known.held.digest}`);
    t.same(await honeypots.taken(), [], `${name}: ${url}`);
    isRefusal(t, answer, name);
    t.equal(registry.seen[0]?.method, 'HEAD', 'it was asked whether it has that too');
  }
});

// The proxy here dials whatever it is asked for, so the honeypots count what the mirror asks it. Names are the proxy's
// own to look up: what they lead to, no mirror can tell.
test('6. Location, through a proxy: what the URL alone shows to be inside is not asked for', async (t, stage) => {
  const { ask, honeypots, registry } = stage;
  for (const [name, url] of [...addresses, ...spellings, ...oddities]) {
    registry.script = redirect(url);
    isRefusal(t, await ask('GET', fresh('proxied.example').blob), name);
    t.same(await honeypots.taken(), [], `${name}: ${url}`);
  }
});

// The public server ends each connection, so each pull is a look-up, and the next answer in turn.
for (const [at, [what, , ends]] of rebindings.entries()) {
  test(`6. a name that rebinds: ${what}`, async (t, { ask, honeypots, registry, names }) => {
    names.restart();
    for (const end of ends) {
      const { blob, held, honestPath } = fresh();
      registry.script = redirect(`http://rebinding-${at}.test${honestPath}`);
      const { status, body } = await ask('GET', blob);
      t.equal(status, end);
      if (end === 200) t.same(body, held.bytes);
      t.same(await honeypots.taken(), []);
    }
  });
}

test('6. a name that rebinds between two hops, and before a broken request is tried again', async (t, stage) => {
  const { ask, honeypots, registry, names } = stage;
  for (const path of ['hop-rebinds.test/hop?to=http://hop-rebinds.test/latest', 'retry-rebinds.test/cut']) {
    names.restart();
    names.asked();
    registry.script = redirect(`http://${path}`);
    isRefusal(t, await ask('GET', fresh().blob), path);
    t.equal(names.asked().filter((name) => path.startsWith(name)).length, 4, 'two look-ups, of both families');
    t.same(await honeypots.taken(), [], path);
  }
});

test('6. a name that rebinds while a blob is under way: what was cut is not gone on with inside', async (t, stage) => {
  const { serve, honeypots, registry, names, cut } = stage;
  const { blob, held, honestPath } = fresh();
  names.restart();
  registry.forget();
  registry.script = redirect(`http://resume-rebinds.test${honestPath.replace('honest', 'half')}`);
  const got = await download(`${serve.url}/v2/${blob}`, { onBytes: cut });
  t.same(await honeypots.taken(), []);
  t.same({ status: got.status, isComplete: got.isComplete }, { status: 200, isComplete: false });
  t.same(got.body, held.bytes.subarray(0, got.body.length), 'what came is what the public server sent');
  t.match(registry.seen[1]?.headers.range, /^bytes=\d+-$/, 'the registry was asked for the rest, and sent it there');
});

// Where the first address does not answer, the next is tried: it must not be there to try.
test('6. public and private at once, on a port that only the private ones have open', async (t, stage) => {
  const { ask, honeypots, registry } = stage;
  registry.script = redirect('http://mixed.test:6379/');
  isRefusal(t, await ask('GET', fresh().blob), 'the public one has nobody there');
  t.same(await honeypots.taken(), []);
});

test('6. the configured host is trusted at its port, and under its name, alone', async (t, stage) => {
  const { ask, honeypots, registry } = stage;
  const own = fresh('named.example');
  registry.script = undefined;
  registry.put(own.repository.replace('named.example/', ''), own.held);
  t.equal((await ask('GET', own.blob)).status, 200, 'though its address is private');
  const lays = [(url: string) => redirect(url), challenge];
  for (const lay of lays) {
    for (const port of honeypotPorts) {
      const { blob, held } = fresh('named.example');
      registry.script = lay(`http://registry.corp.test:${port}/`, held);
      isRefusal(t, await ask('GET', blob), `port ${port}`);
    }
    for (const alias of ['localhost', 'loopback.test', '[::ffff:127.0.0.1]', '0.0.0.0', '127.0.0.1.nip.test']) {
      const { blob, held } = fresh();
      registry.script = lay(`http://${alias}:${registry.port}/elsewhere`, held);
      isRefusal(t, await ask('GET', blob), alias);
      t.notOk(
        registry.seen.some(({ path }) => path === '/elsewhere'),
        `${alias} is another host`,
      );
    }
  }
  const { blob, held } = fresh('token.example');
  registry.script = challenge('http://token.test:6379/token', held);
  isRefusal(t, await ask('GET', blob), 'another port of a trusted host');
  t.same(await honeypots.taken(), []);
});

test('6. Link: only its query is taken, and it is the registry that is asked', async (t, stage) => {
  const { ask, honeypots, registry, names } = stage;
  names.asked();
  for (const [name, url] of all) {
    registry.forget();
    registry.script = pagedTo(url);
    const { repository, held } = fresh();
    for (const list of ['tags/list', `referrers/${held.digest}`]) {
      const { headers } = await ask('GET', `${repository}/${list}`);
      t.match(headers['link'] ?? '</v2/', /^<\/v2\//, `${name}: ${url}`);
    }
    await ask('GET', `${repository}/tags/list?n=1&last=a`);
    t.ok(
      registry.seen.every(({ path }) => path.startsWith('/v2/try/')),
      'the registry, under its own paths',
    );
  }
  t.same(await honeypots.taken(), []);
  t.same(names.asked(), [], 'no name was looked up');
});

// These are the client's to say, and name an upstream of the configuration or nothing.
test('6. ?ns= and the path: a registry that is not configured is not looked up', async (t, stage) => {
  const { ask, honeypots, registry, names } = stage;
  registry.script = undefined;
  registry.forget();
  names.asked();
  for (const [name, url] of all) {
    const values = [url, URL.parse(url, 'http://x')?.host ?? '', hostOf(url)];
    for (const value of new Set(values.map(encodeURIComponent)).difference(new Set(['', 'x']))) {
      for (const rest of ['manifests/1', `blobs/${fresh().held.digest}`]) {
        isRefusal(t, await ask('GET', `x/y/${rest}?ns=${value}`), `${name}: ns=${value}`);
        isRefusal(t, await ask('GET', `${value}/y/${rest}`), `${name}: /v2/${value}`);
      }
    }
    t.same(await honeypots.taken(), [], `${name}: ${url}`);
  }
  t.same(names.asked(), [], 'no name was looked up');
});

test("7. urls of foreign layers: never looked up, never asked; the layer is the registry's to have", async (t, stage) => {
  const { ask, honeypots, registry, names } = stage;
  names.asked();
  for (const [at, [name, url]] of all.entries()) {
    const [config, layer] = [blobOf(Buffer.from('{}')), blobOf(Buffer.from(`a layer elsewhere: ${at}`))];
    const foreign = [
      'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
      'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
      'application/vnd.oci.image.layer.v1.tar+gzip',
    ][at % 3]!;
    const manifest = content(
      {
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: { ...descriptor(config), mediaType: mediaTypes.ociConfig },
        layers: [{ ...descriptor(layer), mediaType: foreign, urls: [url, `${url}${layer.digest}`] }],
      },
      mediaTypes.ociManifest,
    );
    const repository = `foreign/r${at}`;
    registry.script = undefined;
    registry.forget();
    for (const one of [config, manifest]) registry.put(repository, one);
    const pulled = await ask('GET', `evil.example/${repository}/manifests/${manifest.digest}`);
    t.same(pulled.body, manifest.bytes, 'the manifest is given as it is');
    const answer = await ask('GET', `evil.example/${repository}/blobs/${layer.digest}`);
    isRefusal(t, answer, name);
    t.equal(answer.status, 404);
    t.ok(registry.count('GET blobs', layer.digest) > 0, 'the registry was asked for it');
    t.same(await honeypots.taken(), [], `${name}: ${url}`);
  }
  t.same(names.asked(), [], 'no name was looked up');
});

test('6. the mirror lived through all of it, and when it has ended nobody else was dialled', async (t, stage) => {
  const { serve, honeypots, registry, ask } = stage;
  const { blob, held, honestPath } = fresh();
  registry.script = redirect(`http://public.test${honestPath}`);
  t.same((await ask('GET', blob)).body, held.bytes, 'it still serves');
  serve.child.kill('SIGTERM');
  t.equal(await serve.exit, 0);
  t.same(await honeypots.taken(), []);
});
