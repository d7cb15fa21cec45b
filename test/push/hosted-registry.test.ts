import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openCatalog } from '../../src/cache/catalog.ts';
import { createDiskTier } from '../../src/cache/disk.ts';
import { createHostedContent } from '../../src/cache/hosted-content.ts';
import { openSqliteLedger } from '../../src/cache/sqlite-ledger.ts';
import { digestOf, hexOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { createHostedRegistry } from '../../src/push/hosted-registry.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { noise } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { createPusher } from '../fixtures/push.ts';
import { blobOf } from '../fixtures/registry.ts';

const repository = parseRepositoryName('team/x');
const bytes = noise('hosted registry', 600_000);
const digest = digestOf(bytes);
const document = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] }));
const manifest = digestOf(document);

interface Stage {
  readonly registry: Upstream;
  readonly store: string;
  /** From here on the books cannot be reached. */
  loseBooks(): void;
}

async function prepare(t: Teardown): Promise<Stage> {
  const store = await temporaryFolder(t);
  const catalog = openCatalog(join(store, 'catalog.sqlite'), Date.now);
  t.teardown(() => catalog.close());
  const disk = await createDiskTier({
    path: store,
    maxVerified: 100,
    maxBufferBytes: 64 * 1024 * 1024,
    maxLeftoverBytes: 2 ** 30,
  });
  t.teardown(() => disk.close());
  const ledger = openSqliteLedger(join(store, 'hosted.sqlite'));
  t.teardown(() => ledger.close());
  const content = createHostedContent({ disk, catalog, shared: [] });
  await content.put(digest, bytes);
  await content.put(manifest, document);
  const entries = {
    [`blob/${digest}`]: { bytes: bytes.length, atMs: 0 },
    [`manifest/${manifest}`]: { mediaType: mediaTypes.ociIndex, bytes: document.length, atMs: 0, uses: [] },
    'tag/v1': { digest: manifest, mediaType: mediaTypes.ociIndex, step: 1 },
  };
  await ledger.commit(
    repository,
    Object.entries(entries).map(([key, value]) => ({ key, after: JSON.stringify(value) })),
  );
  return { registry: createHostedRegistry(ledger, content, 1e6), store, loseBooks: () => ledger.close() };
}

async function collect(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

void t.test('what is there: heads, manifests, blobs from any place', async (t) => {
  const { registry } = await prepare(t);
  for (const reference of ['v1', manifest]) {
    const head = await registry.head(repository, parseReference(reference));
    t.match(head, { digest: manifest, contentType: mediaTypes.ociIndex });
    const answer = await registry.manifest(repository, parseReference(reference));
    t.match(answer, { contentType: mediaTypes.ociIndex });
    t.ok(answer?.bytes.equals(document));
  }
  t.match(await registry.blobHead(repository, digest), { size: bytes.length });
  for (const from of [0, 1, 262_144, 300_001, bytes.length - 1]) {
    const blob = await registry.blob(repository, digest, from);
    t.match(blob, { size: bytes.length, offset: from });
    t.ok((await collect(blob!.body)).equals(bytes.subarray(from)), `from ${from}`);
  }
});

void t.test('pieces of a blob are the reader’s own, however long they are kept', async (t) => {
  const { registry } = await prepare(t);
  const blob = await registry.blob(repository, digest, 0);
  const pieces: Buffer[] = [];
  for await (const piece of blob!.body) pieces.push(piece);
  t.ok(pieces.length > 2);
  t.ok(Buffer.concat(pieces).equals(bytes));
});

void t.test('what is not there is not there, in any repository but its own', async (t) => {
  const { registry } = await prepare(t);
  const other = digestOf(Buffer.from('other'));
  for (const [name, tag, blob] of [
    ['team/x', 'v2', other],
    ['team/y', 'v1', digest],
  ] as const) {
    const place = parseRepositoryName(name);
    for (const reference of [tag, name === 'team/y' ? manifest : other]) {
      t.equal(await registry.head(place, parseReference(reference)), undefined);
      t.equal(await registry.manifest(place, parseReference(reference)), undefined);
    }
    t.equal(await registry.blobHead(place, blob), undefined);
    t.equal(await registry.blob(place, blob, 0), undefined);
  }
  t.equal(await registry.list(parseRepositoryName('team/y'), 'tags/list', new URLSearchParams()), undefined);
  const none = await registry.list(parseRepositoryName('team/y'), `referrers/${digest}`, new URLSearchParams());
  t.match(JSON.parse(none!.bytes.toString()), { manifests: [] });
});

void t.test('content that is in the books and not on the disk is trouble, never "not there"', async (t) => {
  const { registry, store } = await prepare(t);
  for (const one of [digest, manifest]) await rm(join(store, 'blobs/sha256', hexOf(one)));
  await t.rejects(registry.manifest(repository, parseReference('v1')), {
    kind: 'upstreamUnavailable',
    code: 'UNAVAILABLE',
  });
  await t.rejects(registry.blob(repository, digest, 0), { kind: 'upstreamUnavailable', code: 'UNAVAILABLE' });
  await writeFile(join(store, 'blobs/sha256', hexOf(manifest)), 'rotten');
  await t.rejects(registry.manifest(repository, parseReference('v1')), {
    kind: 'upstreamUnavailable',
    code: 'UNAVAILABLE',
  });
});

void t.test('books that cannot be reached are trouble, never "not there"', async (t) => {
  const { registry, loseBooks } = await prepare(t);
  loseBooks();
  const trouble = { kind: 'upstreamUnavailable', message: /\.$/ };
  await t.rejects(registry.head(repository, parseReference('v1')), trouble);
  await t.rejects(registry.manifest(repository, parseReference(manifest)), trouble);
  await t.rejects(registry.blobHead(repository, digest), trouble);
  await t.rejects(registry.blob(repository, digest, 0), trouble);
  await t.rejects(registry.list(repository, 'tags/list', new URLSearchParams()), trouble);
  await t.rejects(registry.list(repository, `referrers/${digest}`, new URLSearchParams()), trouble);
});

void t.test('a blob whose file has rotted is never given whole', async (t) => {
  const store = await temporaryFolder(t);
  const start = () =>
    startTestMirror(t, {
      upstreams: { lab: 'http://127.0.0.1:1' },
      config: { repositories: [{ name: 'team/*', hosted: true, push: ['anonymous'] }] },
      store,
    });
  const first = await start();
  t.equal((await createPusher(first, 'team/x').blob(blobOf(bytes))).status, 201);
  await first.stop();
  const rotten = Buffer.from(bytes);
  rotten[500_000]! ^= 1;
  await writeFile(join(store, 'blobs/sha256', hexOf(digest)), rotten);
  const second = await start();
  const path = `/v2/team/x/blobs/${digest}`;
  const outcome = await second.get(path).then(
    (answer) => answer.status,
    () => 'broken off',
  );
  t.not(outcome, 200);
  t.not(outcome, 404);
  t.equal((await createPusher(second, 'team/x').blob(blobOf(bytes))).status, 201, 'and can be pushed again');
  t.ok((await second.get(path)).body.equals(bytes));
});
