import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { mediaTypes } from '../../src/oci/media-types.ts';
import { createReading } from '../../src/pull/reading.ts';
import type { Readable } from '../../src/pull/reading.ts';
import { buildImage } from '../fixtures/images.ts';

const { index } = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'reading' });

function readable(bytes: Buffer, mediaType: string = mediaTypes.ociIndex): Readable {
  return { digest: digestOf(bytes), bytes, mediaType };
}

const known = readable(index.bytes);

void t.test('a manifest is read once', (t) => {
  const { read } = createReading(1024 * 1024);
  const document = read(known);
  t.match(document, { kind: 'index', manifests: { length: 2 } });
  t.equal(read({ ...known }), document);
  t.end();
});

void t.test('as something else it says something else', (t) => {
  const { read } = createReading(1024 * 1024);
  const document = read(known);
  t.throws(() => read({ ...known, mediaType: mediaTypes.ociManifest }));
  t.equal(read(known), document);
  t.end();
});

void t.test('what nothing can be made of is told each time, or nothing', (t) => {
  const { read, readLeniently } = createReading(1024 * 1024);
  const broken = readable(Buffer.from('{'));
  for (let times = 0; times < 2; times++) {
    t.throws(() => read(broken), { kind: 'upstreamManifestInvalid', code: 'MANIFEST_INVALID' });
    t.equal(readLeniently(broken), undefined);
  }
  t.end();
});

void t.test('there is room for so much, and for nothing', (t) => {
  const some = createReading(60 * index.bytes.length + 4096);
  const first = some.read(known);
  t.equal(some.read(known), first);
  for (let at = 0; at < 5; at++) some.read(readable(Buffer.concat([index.bytes, Buffer.alloc(at + 1, ' ')])));
  t.not(some.read(known), first, 'it had to go');
  t.same(some.read(known), first);
  const none = createReading(0);
  t.not(none.read(known), none.read(known));
  t.end();
});
