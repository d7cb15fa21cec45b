import { Readable } from 'node:stream';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import type { Test } from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import { run } from '../../src/cli/program.ts';
import { hexOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { filesOf, until } from '../fixtures/downloads.ts';
import { content, descriptor, noise } from '../fixtures/images.ts';
import type { Content } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { runCommand } from '../fixtures/process.ts';
import { startRegistry } from '../fixtures/registry.ts';

const layerType = 'application/vnd.oci.image.layer.v1.tar';
const base = content(noise('base', 200_000), layerType);

interface Child {
  readonly manifest: Content;
  readonly config: Content;
  readonly own: Content;
}

/** An image for a platform, upon the base that all of them have in common. */
function buildChild(architecture: string, bytes: number): Child {
  const config = content({ os: 'linux', architecture }, mediaTypes.ociConfig);
  const own = content(noise(architecture, bytes), layerType);
  const layers = [base, own].map(descriptor);
  const manifest = content(
    { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: descriptor(config), layers },
    mediaTypes.ociManifest,
  );
  return { manifest, config, own };
}

const amd64 = buildChild('amd64', 300_000);
const arm64 = buildChild('arm64', 100_000);
const index = content(
  {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [
      { ...descriptor(amd64.manifest), platform: { os: 'linux', architecture: 'amd64' } },
      { ...descriptor(arm64.manifest), platform: { os: 'linux', architecture: 'arm64' } },
    ],
  },
  mediaTypes.ociIndex,
);
const manifests = [index, amd64.manifest, arm64.manifest];
const blobs = [base, amd64.config, amd64.own, arm64.config, arm64.own];
const everything = [...manifests, ...blobs];
const ofAmd64 = [amd64.manifest, amd64.config, amd64.own];
const ofOthers = everything.filter((held) => !ofAmd64.includes(held));

function sizeOf(all: readonly Content[]): number {
  return all.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

function namesOf(all: readonly Content[]): string[] {
  return all.map(({ digest }) => hexOf(digest)).toSorted();
}

/** A store into which both platforms were pulled, the base last; its server runs on. */
async function prepare(t: Test, disk: Record<string, unknown> = {}) {
  const registry = await startRegistry();
  t.teardown(registry.close);
  for (const one of everything) registry.put('library/app', one);
  registry.put('library/app', index, '1');
  const upstreams = { 'docker.io': { url: registry.url } };
  const mirror = await startTestMirror(t, { upstreams });
  const pull = async (kind: string, { digest, bytes }: Content) => {
    const got = await mirror.get(`/v2/docker.io/library/app/${kind}/${digest}`);
    t.ok(got.body.equals(bytes));
    await until(() => existsSync(join(mirror.store, 'blobs/sha256', hexOf(digest))), 'the content on the disk');
  };
  await mirror.get('/v2/docker.io/library/app/manifests/1');
  for (const one of manifests) await pull('manifests', one);
  for (const one of [...blobs.slice(1), base]) await pull('blobs', one);
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(
    file,
    JSON.stringify({
      upstreams,
      platforms: { sets: { edge: ['linux/arm64', 'linux/arm/v7'] } },
      cache: { disk: { path: mirror.store, ...disk } },
    }),
  );
  const held = async () => (await filesOf(mirror.store)).blobs.map((path) => basename(path)).toSorted();
  t.same(await held(), namesOf(everything));
  const gc = (...args: string[]) => runCommand(['gc', '--config', file, ...args]);
  return { registry, mirror, file, pull, held, gc };
}

void t.test('gc: --dry-run says what would go, and leaves it', async (t) => {
  const { held, gc } = await prepare(t);
  const { code, out, err } = await gc('--keep-platform', 'linux/arm64', '--dry-run');
  t.equal(
    out,
    `SERVES       WHY             BLOBS       SIZE
linux/amd64  other platform      3  293.5 KiB

3 blobs, 293.5 KiB of 587.6 KiB would go
`,
  );
  t.match({ code, err }, { code: 0, err: '' });
  t.same(await held(), namesOf(everything));
});

void t.test('gc: --dry-run leaves it beyond the bound too, with or without a server', async (t) => {
  const { mirror, held, gc } = await prepare(t, { maxSize: '1KiB' });
  for (const isRunning of [true, false]) {
    const { out } = await gc('--dry-run');
    t.match(out, /\n8 blobs, 587\.6 KiB of 587\.6 KiB would go\n$/);
    t.same(await held(), namesOf(everything));
    if (isRunning) await mirror.stop();
  }
});

void t.test('gc: --keep-platform takes away what serves others alone, beside a running server', async (t) => {
  const { registry, mirror, held, pull, gc } = await prepare(t);
  registry.forget();
  const { code, out, err } = await gc('--keep-platform', 'linux/arm64');
  t.equal(
    out,
    `SERVES       WHY             BLOBS       SIZE
linux/amd64  other platform      3  293.5 KiB

3 blobs, 293.5 KiB of 587.6 KiB gone
`,
  );
  t.match({ code, err }, { code: 0, err: '' }, 'no bar where nobody looks');
  t.same(await held(), namesOf(ofOthers), 'the layer that both have stays');
  t.equal((await gc('--keep-platform', 'linux/arm64')).out, `0 blobs, 0 B of 294.0 KiB gone\n`);
  for (const one of [arm64.config, base, arm64.own]) await pull('blobs', one);
  t.equal(registry.count('GET blobs'), 0);
  await pull('blobs', amd64.own);
  t.equal(registry.count('GET blobs'), 1, 'what is wanted again comes again');
  t.notOk(mirror.log.some((line) => /"level":"(?:warn|error)"/.test(line)));
});

void t.test('gc: platforms as lists, repeated, and by the name of a set', async (t) => {
  const { gc } = await prepare(t);
  const going = async (...keep: string[]) => {
    const { out } = await gc('--dry-run', '--json', ...keep.flatMap((one) => ['--keep-platform', one]));
    return (JSON.parse(out) as { blobs: { digest: string }[] }).blobs.map(({ digest }) => digest).toSorted();
  };
  const others = ofAmd64.map(({ digest }) => digest).toSorted();
  t.same(await going('edge'), others);
  t.same(await going('linux/arm64,linux/s390x'), others);
  t.same(await going('edge', 'linux/amd64'), []);
  t.same(await going('any'), []);
  t.same(await going(), []);
  t.equal((await going('windows/amd64')).length, 7, 'all but the index, which serves whoever asks');
});

void t.test('gc: JSON for machines, and its sums are right', async (t) => {
  const { held, gc } = await prepare(t);
  for (const isDry of [true, false]) {
    const { code, out, err } = await gc('--json', '--keep-platform', 'edge', ...(isDry ? ['--dry-run'] : []));
    t.match({ code, err }, { code: 0, err: '' });
    const found = JSON.parse(out) as { blobs: { digest: string }[] };
    t.same(
      { ...found, blobs: found.blobs.toSorted((one, other) => one.digest.localeCompare(other.digest)) },
      {
        dryRun: isDry,
        heldBytes: sizeOf(everything),
        goingBytes: sizeOf(ofAmd64),
        blobs: ofAmd64
          .map(({ digest, bytes }) => ({ digest, bytes: bytes.length, reason: 'platform', platforms: ['linux/amd64'] }))
          .toSorted((one, other) => one.digest.localeCompare(other.digest)),
      },
    );
  }
  t.same(await held(), namesOf(ofOthers));
  t.match(JSON.parse((await gc('--json')).out), {
    dryRun: false,
    heldBytes: sizeOf(ofOthers),
    goingBytes: 0,
    blobs: [],
  });
});

void t.test('gc: what is pinned stays, with all that hangs on it', async (t) => {
  const { mirror, held, gc } = await prepare(t, { maxSize: '1KiB' });
  const catalog = openCatalog(join(mirror.store, 'catalog.sqlite'), Date.now);
  t.teardown(() => catalog.close());
  catalog.pin('mine', [{ digest: amd64.manifest.digest, deep: true }]);
  t.equal((await gc('--keep-platform', 'linux/arm64')).code, 0);
  t.same(await held(), namesOf([...ofAmd64, base]), 'beyond the bound as well');
  catalog.unpin('mine');
  catalog.pin('mine', [{ digest: amd64.manifest.digest, deep: false }]);
  t.equal((await gc()).code, 0);
  t.same(await held(), namesOf([amd64.manifest]));
});

void t.test('gc: down to the bound, the least recently used first', async (t) => {
  const { mirror, held, gc } = await prepare(t, { maxSize: '300KiB' });
  await mirror.stop();
  const { code, out } = await gc();
  t.equal(code, 0);
  // By when they were pulled: the documents, then layers as they came, the base last.
  t.equal(
    out,
    `SERVES       WHY                  BLOBS       SIZE
linux/amd64  least recently used      3  293.5 KiB
linux/arm64  least recently used      1      550 B
unknown      least recently used      1      491 B

5 blobs, 294.6 KiB of 587.6 KiB gone
`,
  );
  t.same(await held(), namesOf([arm64.config, arm64.own, base]));
  t.match(JSON.parse((await gc('--json', '--dry-run')).out), { heldBytes: sizeOf([arm64.config, arm64.own, base]) });
});

void t.test('gc: other platforms go before what was not used for long', async (t) => {
  const { mirror, held, gc } = await prepare(t, { maxSize: '200KiB' });
  await mirror.stop();
  const { blobs: gone, goingBytes } = JSON.parse((await gc('--json', '--keep-platform', 'edge')).out) as {
    blobs: { reason: string; bytes: number; digest: string }[];
    goingBytes: number;
  };
  t.equal(
    goingBytes,
    gone.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  t.same(
    gone.map(({ reason }) => reason),
    ['platform', 'platform', 'platform', 'bound', 'bound', 'bound', 'bound'],
  );
  t.same(await held(), namesOf([base]));
});

void t.test('gc: what lies in a store and in no books counts, and nobody can place it', async (t) => {
  const { mirror, held, gc } = await prepare(t);
  await mirror.stop();
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'blobs/sha256'), { recursive: true });
  for (const name of await held()) {
    await copyFile(join(mirror.store, 'blobs/sha256', name), join(folder, 'blobs/sha256', name));
  }
  const { out } = await gc('--store', folder, '--keep-platform', 'linux/arm64');
  t.equal(out, '0 blobs, 0 B of 587.6 KiB gone\n');
  await rm(join(mirror.store, 'blobs/sha256', hexOf(base.digest)));
  t.match((await gc('--keep-platform', 'linux/arm64')).out, '3 blobs, 293.5 KiB of 587.6 KiB gone\n');
});

void t.test('gc: on a terminal a bar is drawn, beside what it prints', async (t) => {
  const { file } = await prepare(t);
  const printed = { out: '', err: '' };
  const code = await run(['gc', '--config', file, '--keep-platform', 'linux/arm64'], {
    env: {},
    isTerminal: true,
    input: () => Readable.from([]),
    write: () => Promise.resolve(),
    out: (text) => void (printed.out += text),
    err: (text) => void (printed.err += text),
    onStop: () => undefined,
    onReload: () => undefined,
  });
  t.equal(code, 0);
  t.match(
    stripVTControlCharacters(printed.err),
    /^\rremoving ━{30} [\d.]+ (?:Ki)?B of 293\.5 KiB, .*s left(?:\rremov.*)?\r$/,
  );
  t.match(printed.out, /^SERVES[\s\S]*293\.5 KiB of 587\.6 KiB gone\n$/);
});

void t.test('gc: wrong use is exit 2', async (t) => {
  const { held, gc } = await prepare(t);
  const wrong = await gc('--keep-platform', 'arm64');
  t.match(wrong, { code: 2, out: '', err: '"arm64" is no platform such as linux/arm64, no named set, and not any.\n' });
  t.equal((await gc('--keep-platform', 'linux/arm64', 'more')).code, 2);
  t.same(await held(), namesOf(everything));
  t.match(await runCommand(['gc', '--help']), { code: 0, out: /Example:\n {2}narrows gc / });
});
