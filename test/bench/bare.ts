/** The least that a mirror of these libraries does: passes a blob on, hashes it and writes it to a file. `<upstream> <port> <store>` */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Agent } from 'undici';

const [origin = '', port, store = ''] = process.argv.slice(2);
const agent = new Agent();
let files = 0;

async function passOn(path: string, response: ServerResponse): Promise<void> {
  const answer = await agent.request({ origin, path, method: 'GET' });
  response.writeHead(answer.statusCode, { 'content-length': String(answer.headers['content-length']) });
  const hash = createHash('sha256');
  const file = await open(join(store, `${files++}`), 'w');
  let waiting: Buffer[] = [];
  let writing: Promise<void> | undefined;
  const write = async () => {
    for (let chunks = waiting; chunks.length > 0; chunks = waiting) {
      waiting = [];
      await file.writev(chunks);
    }
    writing = undefined;
  };
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    hash.update(chunk);
    waiting.push(chunk);
    writing ??= write();
    if (!response.write(chunk)) await once(response, 'drain');
  }
  hash.digest();
  response.end();
  await writing;
  await file.close();
}

createServer((request, response) => void passOn(request.url ?? '/', response)).listen(Number(port), '127.0.0.1');
