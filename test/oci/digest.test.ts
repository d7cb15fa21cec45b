import { createHash } from 'node:crypto';
import t from 'tap';
import {
  algorithmOf,
  digestOf,
  finish,
  hexOf,
  isDigest,
  isEmptyDigest,
  matches,
  parseDigest,
  startHash,
} from '../../src/oci/digest.ts';
import { noise } from '../fixtures/images.ts';

const sha256 = `sha256:${'0123456789abcdef'.repeat(4)}`;
const sha512 = `sha512:${'0123456789abcdef'.repeat(8)}`;

const wrong: Record<string, string> = {
  empty: '',
  'a tag': 'latest',
  'no hex': 'sha256:',
  'one digit short': sha256.slice(0, -1),
  'one digit long': `${sha256}0`,
  'sha512, one digit short': sha512.slice(0, -1),
  'sha512, one digit long': `${sha512}0`,
  'upper-case hex': sha256.replace(/:.*/, (hex) => hex.toUpperCase()),
  'an upper-case algorithm': sha256.replace('sha256', 'SHA256'),
  'sha512 with the length of sha256': sha256.replace('sha256', 'sha512'),
  'sha256 with the length of sha512': sha512.replace('sha512', 'sha256'),
  'an algorithm of no use': `md5:${'0'.repeat(32)}`,
  'an algorithm nobody has': `blake3:${'0'.repeat(64)}`,
  'two colons': `sha256:${sha256}`,
  'a dash for the colon': sha256.replace(':', '-'),
  'a path': `sha256:../../${'0'.repeat(58)}`,
  'a slash in the hex': `sha256:${'0'.repeat(31)}/${'0'.repeat(32)}`,
  'digits of another script': `sha256:${'٠'.repeat(64)}`,
  'full-width digits': `sha256:${'０'.repeat(64)}`,
  'NUL behind it': `${sha256}\0`,
  'a line break behind it': `${sha256}\n`,
  'a line break before it': `\n${sha256}`,
  'a space before it': ` ${sha256}`,
  'a second line that is right': `x\n${sha256}`,
};

void t.test('parseDigest: sha256 and sha512 in canonical form are digests', (t) => {
  for (const text of [sha256, sha512]) {
    t.equal(parseDigest(text), text);
    t.ok(isDigest(text), text);
  }
  t.end();
});

void t.test('25. parseDigest: anything else is DIGEST_INVALID, whatever file name it would make', (t) => {
  for (const [name, text] of Object.entries(wrong)) {
    t.notOk(isDigest(text), name);
    t.throws(() => parseDigest(text), { kind: 'digestInvalid', code: 'DIGEST_INVALID', status: 400 }, name);
  }
  t.end();
});

void t.test('parseDigest: a huge text is not repeated whole in the message', (t) => {
  t.throws(() => parseDigest('x'.repeat(1_000_000)), { message: /^.{1,400}$/ });
  t.end();
});

void t.test('a digest tells its algorithm and its hex', (t) => {
  t.equal(algorithmOf(parseDigest(sha256)), 'sha256');
  t.equal(hexOf(parseDigest(sha256)), sha256.slice('sha256:'.length));
  t.equal(algorithmOf(parseDigest(sha512)), 'sha512');
  t.equal(hexOf(parseDigest(sha512)), sha512.slice('sha512:'.length));
  t.end();
});

void t.test('digestOf: gives the published digests of empty content', (t) => {
  const nothing = new Uint8Array();
  t.equal(digestOf(nothing), 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  t.equal(
    digestOf(nothing, 'sha512'),
    'sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e',
  );
  t.end();
});

void t.test('26. matches: one flipped bit anywhere is seen, by both algorithms', (t) => {
  const bytes = noise('digest', 1000);
  for (const algorithm of ['sha256', 'sha512'] as const) {
    const digest = digestOf(bytes, algorithm);
    t.equal(digest, `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`);
    t.ok(matches(bytes, digest));
    for (const at of [0, 500, 999]) {
      const flipped = Buffer.from(bytes);
      flipped[at]! ^= 1;
      t.notOk(matches(flipped, digest), `${algorithm}, byte ${at}`);
    }
    t.notOk(matches(bytes.subarray(0, 999), digest), `${algorithm}, cut`);
  }
  t.end();
});

void t.test('startHash: a hash that runs over pieces ends as that of the whole', (t) => {
  const bytes = noise('pieces', 4096);
  for (const algorithm of ['sha256', 'sha512'] as const) {
    for (const step of [1, 7, 1024, 5000]) {
      const digest = digestOf(bytes, algorithm);
      const running = startHash(digest);
      for (let at = 0; at < bytes.length; at += step) running.update(bytes.subarray(at, at + step));
      t.ok(finish(running, digest), `${algorithm} in steps of ${step}`);
    }
    const digest = digestOf(bytes, algorithm);
    t.notOk(finish(startHash(digest).update(bytes.subarray(1)), digest), `${algorithm}, first byte missing`);
  }
  t.end();
});

void t.test('isEmptyDigest: of no bytes, by both algorithms, and of nothing else', (t) => {
  const cases: [bytes: Buffer, expected: boolean][] = [
    [Buffer.alloc(0), true],
    [Buffer.alloc(1), false],
    [Buffer.from('{}'), false],
    [Buffer.from('\n'), false],
  ];
  for (const [bytes, expected] of cases) {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      t.equal(
        isEmptyDigest(digestOf(bytes, algorithm)),
        expected,
        `${algorithm} of ${JSON.stringify(bytes.toString())}`,
      );
    }
  }
  t.notOk(isEmptyDigest(parseDigest(sha256)));
  t.notOk(isEmptyDigest(parseDigest(sha512)));
  t.end();
});
