import { Agent, request } from 'undici';
import { digestOf, matches, parseDigest } from '../../src/oci/digest.ts';
import { containerdAccept } from '../fixtures/mirror.ts';

/** What a pull brought. */
export interface Pulled {
  readonly digest: string;
  readonly view: string;
  readonly cache: string;
  readonly bytes: number;
  readonly requests: number;
}

interface Descriptor {
  digest: string;
  size: number;
}

/**
 * Pulls an image as containerd does: HEAD of the tag, then everything by digest, each verified.
 *
 * @param base the address that the client is configured with, up to /v2
 */
export async function pullAsContainerd(
  base: string,
  repository: string,
  tag: string,
  onProgress: (done: number, total: number) => void,
): Promise<Pulled> {
  const dispatcher = new Agent();
  let requests = 0;
  let bytes = 0;

  async function get(path: string, onBytes: (count: number) => void = () => undefined): Promise<Buffer> {
    requests++;
    const headers = { accept: containerdAccept };
    const answer = await request(`${base}/${repository}/${path}?ns=docker.io`, { headers, dispatcher });
    if (answer.statusCode !== 200) throw new Error(`${path}: ${answer.statusCode} ${await answer.body.text()}`);
    const chunks: Buffer[] = [];
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      onBytes(chunk.length);
    }
    return Buffer.concat(chunks);
  }

  requests++;
  const head = await request(`${base}/${repository}/manifests/${tag}?ns=docker.io`, {
    method: 'HEAD',
    headers: { accept: containerdAccept },
    dispatcher,
  });
  await head.body.dump();
  const digest = parseDigest(String(head.headers['docker-content-digest']));
  const manifest = await get(`manifests/${digest}`);
  if (!matches(manifest, digest)) throw new Error(`${digest} is answered with ${digestOf(manifest)}`);
  const { config, layers } = JSON.parse(manifest.toString()) as { config: Descriptor; layers: Descriptor[] };
  const contents = [config, ...layers];
  const total = contents.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  for (const content of contents) {
    const blob = await get(`blobs/${content.digest}`, (count) => onProgress((done += count), total));
    if (!matches(blob, parseDigest(content.digest))) throw new Error(`${content.digest} is not what came`);
  }
  await dispatcher.close();
  return {
    digest,
    view: String(head.headers['narrows-view']),
    cache: String(head.headers['narrows-cache']),
    bytes,
    requests,
  };
}
