import t from 'tap';
import type { Test } from 'tap';
import { buildImage } from '../fixtures/images.ts';
import type { BuiltChild, BuiltImage } from '../fixtures/images.ts';
import { containerdAccept, startTestMirror } from '../fixtures/mirror.ts';
import type { TestMirror } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';
import type { TestRegistry } from '../fixtures/registry.ts';

const published = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], attestations: true, seed: 'published' });
const supplied = buildImage({ platforms: ['linux/amd64', 'linux/riscv64'], attestations: true, seed: 'supplied' });
const [amd64, arm64] = published.children as [BuiltChild, BuiltChild];
const [theirs, riscv64] = supplied.children as [BuiltChild, BuiltChild];

const name = 'docker.io/library/mysql';
const overlay = { platform: 'linux/riscv64', from: 'ghcr.io/riscv/mysql' };

interface Staged {
  readonly mirror: TestMirror;
  readonly hub: TestRegistry;
  readonly ghcr: TestRegistry;
  tag(set: string | undefined): ReturnType<TestMirror['get']>;
  restart(): Promise<Staged>;
}

interface StageOptions {
  readonly overlays?: readonly object[];
  readonly image?: BuiltImage;
  readonly store?: string;
  readonly registries?: readonly [TestRegistry, TestRegistry];
}

async function stage(t: Test, options: StageOptions = {}): Promise<Staged> {
  const { overlays = [overlay], image = published } = options;
  const [hub, ghcr] = options.registries ?? [await startRegistry(), await startRegistry()];
  if (!options.registries) {
    t.teardown(hub.close);
    t.teardown(ghcr.close);
    hub.putImage('library/mysql', '8', image);
    ghcr.putImage('riscv/mysql', '8', supplied);
  }
  const mirror = await startTestMirror(t, {
    upstreams: { 'docker.io': hub.url, 'ghcr.io': ghcr.url },
    config: {
      tags: { fresh: 0, stale: 0, missing: 0 },
      repositories: [{ name, overlays }],
    },
    ...(options.store !== undefined && { store: options.store }),
  });
  return {
    mirror,
    hub,
    ghcr,
    tag: (set) =>
      mirror.get(`${set === undefined ? '' : `/p/${set}`}/v2/library/mysql/manifests/8`, { accept: containerdAccept }),
    async restart() {
      await mirror.stop();
      return stage(t, { ...options, store: mirror.store, registries: [hub, ghcr] });
    },
  };
}

interface Listed {
  readonly manifests: readonly { digest: string; platform: object; annotations?: Record<string, string> }[];
}

void t.test(
  'overlay: who runs what the publisher lacks pulls it under the publisher’s name, from where it lives',
  async (t) => {
    const { mirror, hub, ghcr, tag } = await stage(t);
    const answer = await tag('linux-riscv64');
    t.match(answer, {
      status: 200,
      headers: { 'narrows-view': 'image', 'docker-content-digest': riscv64.manifest.digest },
    });
    t.same(answer.body, riscv64.manifest.bytes);
    for (const part of [riscv64.config, ...riscv64.layers]) {
      const path = `/p/linux-riscv64/v2/library/mysql/blobs/${part.digest}`;
      t.match(await mirror.head(path), { status: 200, headers: { 'content-length': String(part.bytes.length) } });
      t.same((await mirror.get(path)).body, part.bytes);
      t.equal(ghcr.count('GET blobs', part.digest), 1);
      t.equal(hub.count('GET blobs', part.digest), 0, 'the publisher is not asked for what it does not have');
    }
  },
);

void t.test(
  'overlay: who runs what the publisher ships gets the publisher’s own, and waits for nobody else',
  async (t) => {
    const { mirror, ghcr, tag } = await stage(t);
    for (const child of [amd64, arm64]) {
      const answer = await tag(child.platform.replace('/', '-'));
      t.match(answer, { status: 200, headers: { 'docker-content-digest': child.manifest.digest } });
    }
    const both = await tag('linux-amd64_linux-arm64');
    t.match(both.headers, { 'docker-content-digest': published.index.digest, 'narrows-view': 'verbatim' });
    t.same(ghcr.seen, []);
    const other = await mirror.get(`/v2/library/mysql/blobs/${theirs.config.digest}`);
    t.match(other, { status: 404 }, 'of the supplier, nothing else is shown');
  },
);

void t.test('overlay: one tag, one index, with the origin of what was added', async (t) => {
  const staged = await stage(t);
  const answer = await staged.tag(undefined);
  t.match(answer, { status: 200, headers: { 'narrows-view': 'index', 'narrows-index': published.index.digest } });
  const { manifests } = answer.json<Listed>();
  const own = JSON.parse(published.index.bytes.toString()) as Listed;
  t.same(manifests.slice(0, own.manifests.length), own.manifests, 'the publisher’s entries are as they were');
  const added = manifests.slice(own.manifests.length);
  t.match(added[0], {
    digest: riscv64.manifest.digest,
    platform: { os: 'linux', architecture: 'riscv64' },
    annotations: { 'narrows.origin': 'ghcr.io/riscv/mysql:8' },
  });
  t.equal(added[1]?.annotations?.['vnd.docker.reference.digest'], riscv64.manifest.digest, 'and what is said about it');
  t.equal(added.length, 2);

  const digest = answer.headers['docker-content-digest']!;
  const restarted = await staged.restart();
  staged.hub.script = staged.ghcr.script = (_seen, response) => {
    refuse(response, 503, 'UNAVAILABLE');
    return true;
  };
  const again = await restarted.mirror.get(`/v2/library/mysql/manifests/${digest}`);
  t.match(again, { status: 200, headers: { 'docker-content-digest': digest } }, 'by digest, after a restart');
  t.same(again.body, answer.body);
});

void t.test('overlay: it never goes before what the publisher ships, unless it says so', async (t) => {
  const same = { platform: 'linux/amd64', from: 'ghcr.io/riscv/mysql' };
  const polite = await stage(t, { overlays: [same] });
  t.equal((await polite.tag('linux-amd64')).headers['docker-content-digest'], amd64.manifest.digest);
  t.equal((await polite.tag(undefined)).headers['docker-content-digest'], published.index.digest);
  t.same(polite.ghcr.seen, []);
  const bold = await stage(t, { overlays: [{ ...same, override: true }] });
  t.equal((await bold.tag('linux-amd64')).headers['docker-content-digest'], theirs.manifest.digest);
  t.equal((await bold.tag('linux-arm64')).headers['docker-content-digest'], arm64.manifest.digest);
  const { manifests } = (await bold.tag(undefined)).json<Listed>();
  const digests = manifests.map(({ digest }) => digest);
  t.ok(digests.includes(theirs.manifest.digest));
  t.notOk(digests.includes(amd64.manifest.digest), 'what was replaced is gone, with what was said about it');
  t.notOk(manifests.some((entry) => entry.annotations?.['vnd.docker.reference.digest'] === amd64.manifest.digest));
});

void t.test('overlay: a supplier in trouble is the trouble of those who need it alone', async (t) => {
  const { ghcr, tag } = await stage(t);
  ghcr.script = (_seen, response) => {
    refuse(response, 503, 'UNAVAILABLE');
    return true;
  };
  t.match(await tag('linux-riscv64'), { status: 503 }, 'no "not found" for what may be there');
  t.match(await tag('linux-amd64'), { status: 200 });
  t.equal((await tag(undefined)).headers['docker-content-digest'], published.index.digest);
});

void t.test('overlay: a supplier without the tag supplies nothing; another tag may be named', async (t) => {
  const without = await stage(t);
  without.ghcr.delete('riscv/mysql', '8');
  const answer = await without.tag('linux-riscv64');
  t.match(answer, { status: 404 });
  t.match(answer.json(), { errors: [{ code: 'MANIFEST_UNKNOWN', message: /architecture of linux\/riscv64/ }] });
  const named = await stage(t, { overlays: [{ ...overlay, tag: 'port' }] });
  named.ghcr.put('riscv/mysql', riscv64.manifest, 'port');
  t.equal((await named.tag('linux-riscv64')).headers['docker-content-digest'], riscv64.manifest.digest);
});

void t.test('overlay: over a single image, and from one that is hosted here', async (t) => {
  const hub = await startRegistry();
  t.teardown(hub.close);
  for (const blob of [amd64.config, ...amd64.layers]) hub.put('library/mysql', blob);
  hub.put('library/mysql', amd64.manifest, '8');
  const mirror = await startTestMirror(t, {
    upstreams: { 'docker.io': hub.url },
    config: {
      repositories: [
        { name, overlays: [{ platform: 'linux/riscv64', from: 'team/mysql' }] },
        { name: 'team/*', hosted: true, push: ['anonymous'] },
      ],
    },
  });
  t.match(await createPusher(mirror, 'team/mysql').child(riscv64, '8'), { status: 201 });
  const ask = (set: string) => mirror.get(`${set}/v2/library/mysql/manifests/8`, { accept: containerdAccept });
  t.equal((await ask('/p/linux-riscv64')).headers['docker-content-digest'], riscv64.manifest.digest);
  t.equal((await ask('/p/linux-amd64')).headers['docker-content-digest'], amd64.manifest.digest);
  const { manifests } = (await ask('')).json<Listed>();
  t.same(
    manifests.map(({ digest }) => digest),
    [amd64.manifest.digest, riscv64.manifest.digest],
  );
  for (const part of [riscv64.config, ...riscv64.layers]) {
    t.same((await mirror.get(`/v2/library/mysql/blobs/${part.digest}`)).body, part.bytes);
  }
});
