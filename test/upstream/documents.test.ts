import { createServer } from 'node:http';
import type { RequestListener } from 'node:http';
import t from 'tap';
import type { Test } from 'tap';
import { createDocuments } from '../../src/upstream/documents.ts';
import { listen } from '../fixtures/registry.ts';

async function start(t: Test, answer: RequestListener) {
  const server = createServer(answer);
  const port = await listen(server);
  t.teardown(() => server.close());
  const host = new URL(`http://127.0.0.1:${port}`);
  const documents = createDocuments({ host, connectTimeoutMs: 1000, headersTimeoutMs: 500, maxBytes: 1000 });
  t.teardown(() => documents.close());
  return { documents, host };
}

void t.test('documents: the text, and what proves us goes to that host', async (t) => {
  const seen: (string | undefined)[] = [];
  const { documents, host } = await start(t, ({ url, headers }, response) => {
    seen.push(`${url} ${headers.authorization} ${headers.accept}`);
    response.end('{"a":1}');
  });
  t.equal(await documents.fetch(new URL('/x?y=1', host), { authorization: 'Bearer s' }), '{"a":1}');
  t.same(seen, ['/x?y=1 Bearer s application/json']);
});

void t.test('6. documents: what the host points to is not gone to where that is inside', async (t) => {
  let asked = 0;
  const other = createServer((_, response) => {
    asked++;
    response.end('{}');
  });
  const port = await listen(other);
  t.teardown(() => other.close());
  const { documents, host } = await start(t, (_, response) => {
    response.writeHead(302, { location: `http://127.0.0.1:${port}/` }).end();
  });
  await t.rejects(documents.fetch(host), { message: /answers 302/ });
  for (const inside of [`http://127.0.0.1:${port}/`, `http://localhost:${port}/`, 'http://169.254.169.254/']) {
    await t.rejects(documents.fetch(new URL(inside)), { code: 'ENARROWS_ADDRESS', message: /./ }, inside);
  }
  t.equal(asked, 0);
});

void t.test('28. documents: what is too large, too slow or an error is none', async (t) => {
  const { documents, host } = await start(t, ({ url }, response) => {
    if (url === '/large') response.end('x'.repeat(1001));
    else if (url === '/silent') response.writeHead(200).write('{');
    else response.writeHead(500).end();
  });
  await t.rejects(documents.fetch(new URL('/large', host)), { message: /larger than 1000 bytes/ });
  await t.rejects(documents.fetch(new URL('/silent', host)), { message: /./ });
  await t.rejects(documents.fetch(new URL('/x', host)), { message: /answers 500/ });
  const secure = createDocuments({ host: new URL('https://a'), connectTimeoutMs: 1, headersTimeoutMs: 1, maxBytes: 1 });
  await t.rejects(secure.fetch(host), { message: /not encrypted/ });
  await secure.close();
});
