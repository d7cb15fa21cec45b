import { createHash } from 'node:crypto';
import { Agent } from 'undici';
import type { Dispatcher } from 'undici';
import type { BuiltImage } from '../fixtures/images.ts';
import type { Digest } from '../../src/oci/digest.ts';

/** What became of the requests so far. */
export interface Outcomes {
  /** Whole, and with the right digest. */
  right: number;
  /** Whole, and wrong: there must be none. */
  wrong: string[];
  /** Broken off, which a client sees and tries again. */
  broken: number;
  /** Left by the client itself. */
  left: number;
  /** Told what was the matter, by status. */
  readonly refused: Record<number, number>;
  /** Not found, though it is there: trouble must never look like that. */
  notFound: string[];
  /** No connection: a replica that is being started again. */
  away: number;
  bytes: number;
}

export interface Load {
  readonly outcomes: Outcomes;
  stop(): Promise<void>;
}

export interface LoadOptions {
  readonly clients: number;
  readonly images: readonly BuiltImage[];
  /** The replicas at this moment. */
  urls(): readonly string[];
  /** From 0 to 1; the same sequence for the same seed. */
  random(): number;
}

interface Wanted {
  readonly path: string;
  /** Undefined for a tag: any platform's manifest may be meant. */
  readonly digests: readonly Digest[];
  readonly bytes?: Buffer;
}

/** Clients that pull for as long as they are let: tags, manifests, blobs, parts of blobs; some leave in the middle. */
export function startLoad({ clients, images, urls, random }: LoadOptions): Load {
  const outcomes: Outcomes = { right: 0, wrong: [], broken: 0, left: 0, refused: {}, notFound: [], away: 0, bytes: 0 };
  const agent = new Agent({ connections: clients, headersTimeout: 60_000, bodyTimeout: 60_000 });
  const stopping = new AbortController();
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;

  function choose(): Wanted {
    const at = Math.floor(random() * images.length);
    const image = images[at]!;
    const child = pick(image.children);
    const repository = `up/team/r${at}`;
    const dice = random();
    if (dice < 0.3) {
      const set = child.platform.replaceAll('/', '-');
      return { path: `/p/${set}/v2/${repository}/manifests/1`, digests: [child.manifest.digest] };
    }
    const held = dice < 0.4 ? image.index : dice < 0.5 ? child.manifest : pick([child.config, ...child.layers]);
    const kind = held === image.index || held === child.manifest ? 'manifests' : 'blobs';
    return { path: `/v2/${repository}/${kind}/${held.digest}`, digests: [held.digest], bytes: held.bytes };
  }

  async function once(): Promise<void> {
    const wanted = choose();
    const isPart = wanted.bytes !== undefined && wanted.path.includes('/blobs/') && random() < 0.15;
    const start = isPart ? Math.floor(random() * wanted.bytes.length) : 0;
    const leavesAfter = random() < 0.05 ? Math.floor(random() * 100_000) : Infinity;
    let answer: Dispatcher.ResponseData;
    try {
      const url = new URL(wanted.path, pick(urls()));
      const headers = isPart ? { range: `bytes=${start}-` } : {};
      answer = await agent.request({ origin: url.origin, path: url.pathname, method: 'GET', headers });
    } catch {
      outcomes.away++;
      return;
    }
    await judge(wanted, answer, isPart ? start : undefined, leavesAfter);
  }

  async function judge(
    wanted: Wanted,
    answer: Dispatcher.ResponseData,
    start: number | undefined,
    leavesAfter: number,
  ) {
    const { statusCode, body } = answer;
    const hash = createHash('sha256');
    let length = 0;
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        length += chunk.length;
        outcomes.bytes += chunk.length;
        hash.update(chunk);
        if (length > leavesAfter) {
          outcomes.left++;
          return;
        }
      }
    } catch {
      outcomes.broken++;
      return;
    }
    if (statusCode === 404) outcomes.notFound.push(wanted.path);
    if (statusCode !== 200 && statusCode !== 206) {
      outcomes.refused[statusCode] = (outcomes.refused[statusCode] ?? 0) + 1;
      return;
    }
    const got = hash.digest('hex');
    const expected =
      statusCode === 206
        ? [createHash('sha256').update(wanted.bytes!.subarray(start)).digest('hex')]
        : wanted.digests.map((digest) => digest.slice('sha256:'.length));
    if (expected.includes(got)) outcomes.right++;
    else outcomes.wrong.push(`${statusCode} ${wanted.path} ${length} bytes`);
  }

  async function client(): Promise<void> {
    while (!stopping.signal.aborted) await once();
  }

  const running = Promise.all(Array.from({ length: clients }, client));
  return {
    outcomes,
    async stop() {
      stopping.abort();
      await running;
      await agent.destroy();
    },
  };
}
