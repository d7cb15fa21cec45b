import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { parseReference, parseRepositoryName } from '../../src/oci/reference.ts';
import { createOfflineRegistry } from '../../src/upstream/offline.ts';
import { failureOf } from '../fixtures/servers.ts';

const upstream = createOfflineRegistry('ghcr.io');
const name = parseRepositoryName('team/app');
const digest = digestOf(Buffer.from('anything'));

void t.test('offline: no question is answered, and each refusal names what was asked for', async (t) => {
  const manifest = 'manifestNotHeld';
  const blob = 'blobNotHeld';
  for (const [what, kind, named, question] of [
    ['a tag', manifest, '1.2 of ghcr.io/team/app', upstream.manifest(name, parseReference('1.2'))],
    ['a digest', manifest, `${digest} of ghcr.io/team/app`, upstream.manifest(name, parseReference(digest))],
    ['the head of a tag', manifest, '1.2 of ghcr.io/team/app', upstream.head(name, parseReference('1.2'))],
    ['a blob', blob, `${digest} of ghcr.io/team/app`, upstream.blob(name, digest, 0)],
    ['the rest of a blob', blob, `${digest} of ghcr.io/team/app`, upstream.blob(name, digest, 1000)],
    ['the head of a blob', blob, `${digest} of ghcr.io/team/app`, upstream.blobHead(name, digest)],
    ['the tags', manifest, 'tags/list of ghcr.io/team/app', upstream.list(name, 'tags/list', new URLSearchParams())],
  ] as const) {
    t.match(await failureOf(question), { kind, message: `This mirror is offline and does not hold ${named}.` }, what);
  }
});

void t.test('offline: what is not held is a 404 to clients, that goes on to their next host', async (t) => {
  t.match(await failureOf(upstream.blob(name, digest, 0)), { status: 404, code: 'BLOB_UNKNOWN' });
  t.match(await failureOf(upstream.head(name, parseReference('1'))), { status: 404, code: 'MANIFEST_UNKNOWN' });
});

void t.test('offline: it has its name, and no quota', (t) => {
  t.equal(upstream.name, 'ghcr.io');
  t.equal(upstream.budget?.(), undefined);
  t.end();
});
