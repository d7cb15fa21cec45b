import { generateKeyPairSync, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { readSigner, readVerifier } from '../../src/cli/signing.ts';
import { temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { failureOf } from '../fixtures/servers.ts';

interface Pair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

const pairs = {
  ed25519: generateKeyPairSync('ed25519'),
  ed448: generateKeyPairSync('ed448'),
  'ec p-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'ec p-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  'rsa 2048': generateKeyPairSync('rsa', { modulusLength: 2048 }),
} satisfies Record<string, Pair>;

const contents = Buffer.from('{"narrowsBundle":1}');

/** Both keys of a pair as files. */
async function filesOf(t: Teardown, { publicKey, privateKey }: Pair): Promise<{ own: string; open: string }> {
  const folder = await temporaryFolder(t);
  const [own, open] = [join(folder, 'own.pem'), join(folder, 'open.pem')] as const;
  await writeFile(own, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  await writeFile(open, publicKey.export({ type: 'spki', format: 'pem' }));
  return { own, open };
}

void t.test('signing: what one key signed its other key verifies, of each kind', async (t) => {
  for (const [kind, pair] of Object.entries(pairs)) {
    const { own, open } = await filesOf(t, pair);
    const signature = (await readSigner(own))(contents);
    const check = await readVerifier(open);
    t.doesNotThrow(() => check(contents, signature), kind);
    t.throws(() => check(Buffer.from('{"narrowsBundle":2}'), signature), /is signed by another key/, kind);
    for (const at of [0, signature.length - 1]) {
      const flipped = Buffer.from(signature);
      flipped[at]! ^= 1;
      t.throws(() => check(contents, flipped), /is signed by another key/, kind);
    }
    for (const none of [Buffer.alloc(0), Buffer.from('x'), Buffer.concat([signature, signature])]) {
      t.throws(() => check(contents, none), /is signed by another key/, kind);
    }
  }
});

void t.test('signing: the signatures are those that openssl makes', async (t) => {
  for (const [kind, hash] of [
    ['ed25519', null],
    ['ec p-256', 'sha256'],
    ['rsa 2048', 'sha256'],
  ] as const) {
    const { own } = await filesOf(t, pairs[kind]);
    const signature = (await readSigner(own))(contents);
    t.ok(verify(hash, contents, pairs[kind].publicKey, signature), kind);
  }
});

void t.test('signing: another key of the same kind, or of any other, does not verify', async (t) => {
  const another = { ...pairs, ed25519: generateKeyPairSync('ed25519') };
  const { own } = await filesOf(t, pairs.ed25519);
  const signature = (await readSigner(own))(contents);
  for (const [kind, pair] of Object.entries(another)) {
    const check = await readVerifier((await filesOf(t, pair)).open);
    t.throws(() => check(contents, signature), /is signed by another key than that of --verify-key/, kind);
  }
});

void t.test('signing: what is not signed does not pass where it has to be', async (t) => {
  const check = await readVerifier((await filesOf(t, pairs.ed25519)).open);
  const signature = Buffer.alloc(64);
  for (const [said, signed] of [
    [contents, undefined],
    [undefined, signature],
    [undefined, undefined],
  ] as const) {
    t.throws(() => check(said, signed), /is not signed, and --verify-key says that it has to be/);
  }
});

void t.test('signing: without a key everything passes', async (t) => {
  const check = await readVerifier(undefined);
  t.doesNotThrow(() => check(undefined, undefined));
  t.doesNotThrow(() => check(contents, undefined));
  t.doesNotThrow(() => check(contents, Buffer.from('anything')));
});

void t.test('signing: a key that cannot be read is wrong use, and says what makes one', async (t) => {
  const { open } = await filesOf(t, pairs.ed25519);
  const folder = await temporaryFolder(t);
  const garbage = join(folder, 'garbage.pem');
  await writeFile(garbage, 'no key at all');
  const empty = join(folder, 'empty.pem');
  await writeFile(empty, '');
  const missing = join(folder, 'missing.pem');
  for (const path of [garbage, empty, missing, folder, open]) {
    t.match(await failureOf(readSigner(path)), {
      exitCode: 2,
      message: `${path} is no private key in PEM (openssl genpkey -algorithm ed25519 makes one).`,
    });
  }
  for (const path of [garbage, empty, missing, folder]) {
    t.match(await failureOf(readVerifier(path)), { exitCode: 2, message: `${path} is no public key in PEM` });
  }
});

void t.test('signing: a key that cannot sign is wrong use before anything is written', async (t) => {
  for (const kind of ['x25519', 'x448'] as const) {
    const pair = kind === 'x25519' ? generateKeyPairSync('x25519') : generateKeyPairSync('x448');
    const { own, open } = await filesOf(t, pair);
    t.match(await failureOf(readSigner(own)), { exitCode: 2 }, kind);
    t.match(await failureOf(readVerifier(open)), { exitCode: 2 }, kind);
  }
});
