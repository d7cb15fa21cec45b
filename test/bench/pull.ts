import { createHash } from 'node:crypto';
import { request } from 'node:http';
import type { Agent } from 'node:http';

/** What one client got, and when. */
export interface Pulled {
  isRight: boolean;
  headMs: number;
  firstByteMs: number;
  bytes: number;
}

/** Never rejects. @param digest of what has to come; where there is none, its length alone is looked at */
export function pull(url: string, digest: string | undefined, agent: Agent): Promise<Pulled> {
  const started = performance.now();
  return new Promise((resolve) => {
    const one: Pulled = { isRight: false, headMs: Infinity, firstByteMs: Infinity, bytes: 0 };
    const hash = createHash('sha256');
    const sent = request(url, { agent }, (response) => {
      one.headMs = performance.now() - started;
      response.on('data', (chunk: Buffer) => {
        if (one.bytes === 0) one.firstByteMs = performance.now() - started;
        one.bytes += chunk.length;
        if (digest !== undefined) hash.update(chunk);
      });
      response.on('error', () => undefined);
      response.on('close', () => {
        const isWhole = response.complete && String(one.bytes) === response.headers['content-length'];
        const isSame = digest === undefined || `sha256:${hash.digest('hex')}` === digest;
        one.isRight = response.statusCode === 200 && isWhole && isSame;
        resolve(one);
      });
    });
    sent.on('error', () => resolve(one));
    sent.end();
  });
}
