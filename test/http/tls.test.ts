import { once } from 'node:events';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { generate } from 'selfsigned';
import t from 'tap';
import { Agent } from 'undici';
import { until } from '../fixtures/downloads.ts';
import { fetchAnswer, startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

interface Pair {
  readonly cert: string;
  readonly key: string;
}

async function certificate(commonName: string, ca?: Pair, days = 30): Promise<Pair> {
  const notAfterDate = new Date(Date.now() + days * 86_400_000);
  const notBeforeDate = new Date(Date.now() - 60 * 86_400_000);
  const made = await generate([{ name: 'commonName', value: commonName }], {
    notBeforeDate,
    notAfterDate,
    ...(ca && { ca }),
    ...(!ca && { extensions: [{ name: 'basicConstraints', cA: true }] }),
  });
  return { cert: made.cert, key: made.private };
}

interface Files {
  readonly cert: string;
  readonly key: string;
  /** Both files at once, as renewal tools leave them. */
  write(pair: Pair): Promise<void>;
}

async function filesIn(t: Teardown): Promise<Files> {
  const folder = await temporaryFolder(t);
  const [cert, key] = [join(folder, 'tls.crt'), join(folder, 'tls.key')];
  return {
    cert,
    key,
    async write(pair) {
      for (const [path, text] of [
        [key, pair.key],
        [cert, pair.cert],
      ] as const) {
        await writeFile(`${path}.new`, text);
        await rename(`${path}.new`, path);
      }
    },
  };
}

/** The name on the certificate that a new connection is shown. */
async function nameAt(port: number, options: ConnectionOptions = {}): Promise<unknown> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
  await once(socket, 'secureConnect');
  const name: unknown = socket.getPeerCertificate().subject.CN;
  socket.destroy();
  return name;
}

const blob = blobOf(Buffer.from('what only some may read'));
const path = `/v2/up/team/x/blobs/${blob.digest}`;

void t.test('69. a renewed certificate is used by new connections, half a renewal by none', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  const files = await filesIn(t);
  await files.write(await certificate('first'));
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: { listen: [{ address: '127.0.0.1:0', tls: { cert: files.cert, key: files.key } }] },
  });
  const port = Number(new URL(mirror.urls[0]!).port);
  t.equal(await nameAt(port), 'first');

  const old = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(old, 'secureConnect');

  await writeFile(files.cert, (await certificate('half')).cert);
  await until(() => mirror.log.some((line) => line.includes('was not renewed')), 'a word about the half renewal');
  t.equal(await nameAt(port), 'first', 'a certificate without its key is not used');

  await files.write(await certificate('second'));
  await until(async () => (await nameAt(port)) === 'second', 'the renewed certificate');
  t.ok(mirror.log.some((line) => line.includes('certificate was renewed') && line.includes(files.cert)));
  old.write('GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n');
  t.match(String((await once(old, 'data'))[0]), /^HTTP\/1\.1 200/, 'a connection from before goes on');
  old.destroy();
  t.notMatch(mirror.log.join(), /PRIVATE KEY/, 'no key is ever logged');
});

void t.test('69. client certificates say who asks', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.put('team/x', blob);
  const files = await filesIn(t);
  await files.write(await certificate('localhost'));
  const [authority, stranger] = [await certificate('our authority'), await certificate('another authority')];
  const clientCa = join(await temporaryFolder(t), 'clients.pem');
  await writeFile(clientCa, authority.cert);
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: {
      listen: [{ address: '127.0.0.1:0', tls: { cert: files.cert, key: files.key, clientCa } }],
      access: { mode: 'certificate', groups: { edge: ['edge-7'] }, pull: ['edge'] },
    },
  });
  const url = mirror.urls[0]!.replace('http:', 'https:') + path;
  const ca = await readFile(files.cert, 'utf8');
  const pullAs = async (pair?: Pair, headers: Record<string, string> = {}) => {
    const dispatcher = new Agent({ connect: { ca, servername: 'localhost', ...pair } });
    t.teardown(() => dispatcher.destroy());
    const { status, body } = await fetchAnswer(url, { method: 'GET', dispatcher, headers });
    return { status, text: body.toString() };
  };
  t.same(await pullAs(await certificate('edge-7', authority)), { status: 200, text: 'what only some may read' });
  t.equal((await pullAs(await certificate('edge-8', authority))).status, 403, 'someone else');
  t.equal((await pullAs()).status, 403, 'nobody');
  t.equal((await pullAs(undefined, { authorization: 'Basic ZWRnZS03Og==' })).status, 403, 'a name alone is nobody');
  for (const [name, pair] of Object.entries({
    'of another authority': await certificate('edge-7', stranger),
    'signed by itself': await certificate('edge-7'),
    expired: await certificate('edge-7', authority, -1),
    'of a group': await certificate('edge', authority),
    'of a word with a meaning': await certificate('authenticated', authority),
  })) {
    const { status, text } = await pullAs(pair);
    t.equal(status, 401, name);
    t.match(text, /"code":"UNAUTHORIZED".*client certificate/, name);
    t.notMatch(text, 'what only some may read');
  }
});

void t.test('69. old protocols are not spoken', async (t) => {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  const files = await filesIn(t);
  await files.write(await certificate('localhost'));
  const mirror = await startTestMirror(t, {
    upstreams: { up: registry.url },
    config: { listen: [{ address: '127.0.0.1:0', tls: { cert: files.cert, key: files.key } }] },
  });
  const port = Number(new URL(mirror.urls[0]!).port);
  for (const version of ['TLSv1', 'TLSv1.1'] as const) {
    // SECLEVEL=0: otherwise it is the client that refuses.
    const old = { minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    await t.rejects(nameAt(port, old), { code: /ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION/ }, version);
  }
  t.equal(await nameAt(port, { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' }), 'localhost');
});
