import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import * as fc from 'fast-check';
import t from 'tap';
import type { Test } from 'tap';
import { noise } from '../fixtures/images.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import type { TestAnswer, TestMirror } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const skip = hasRedis ? false : 'redis-server is not installed';
t.setTimeout(280_000);

const users = ['alice', 'bob'] as const;
const repositories = ['team/a', 'team/b', 'team/open'] as const;
type User = (typeof users)[number];
type Repository = (typeof repositories)[number];

const pullers: Record<Repository, readonly string[]> = {
  'team/a': ['alice'],
  'team/b': ['alice', 'bob'],
  'team/open': ['anonymous'],
};
const hashes: Record<User, string> = { alice: hashSync('alice', 4), bob: hashSync('bob', 4) };

/** One blob that all have, one of each, and fillers that push others out of a small store. */
const shared = blobOf(noise('shared', 40_000));
const own = repositories.map((repository) => blobOf(noise(repository, 40_000)));
const fillers = Array.from({ length: 6 }, (_, at) => blobOf(noise(`filler ${at}`, 200_000)));
const blobs = [shared, ...own];

/** Who is a user now, and whether the registry answers: all that an answer may depend on. */
interface Model {
  readonly present: Set<User>;
  isUp: boolean;
}

interface Real {
  readonly replicas: TestMirror[];
  restart(at: number): Promise<void>;
  writeUsers(present: ReadonlySet<User>): Promise<void>;
  setUp(isUp: boolean): void;
  forgetAll(): void;
}

type Command = fc.AsyncCommand<Model, Real>;

/** What must be true of the answer, whatever is cached where. */
function judge(model: Model, read: Read, answer: TestAnswer): void {
  const { user, repository, blob, method, isPart } = read;
  const fail = (why: string) => {
    throw new Error(`${why}: ${answer.status} with ${answer.body.length} bytes to ${read.toString()}`);
  };
  const isUser = user !== undefined && model.present.has(user);
  const isWrong = user !== undefined && !isUser;
  const mayRead =
    !isWrong && (pullers[repository].includes('anonymous') || (isUser && pullers[repository].includes(user)));
  const text = JSON.stringify(answer.headers);
  if (!mayRead) {
    if (answer.status !== 401 && answer.status !== 403) fail('no right, and no refusal');
    if (/etag|content-range|docker-content-digest|accept-ranges/.test(text)) fail('no right, and told of it');
    if (answer.body.includes(blobs[blob]!.bytes.subarray(0, 16))) fail('no right, and bytes');
    return;
  }
  if (answer.status >= 500 && !model.isUp) return;
  const isThere = blob === 0 || blob - 1 === repositories.indexOf(repository);
  if (!isThere) return answer.status === 404 ? undefined : fail('it is not there');
  if (answer.status !== (isPart ? 206 : 200)) fail('a right, and no answer');
  const { bytes } = blobs[blob]!;
  const expected = isPart ? bytes.subarray(5, 10) : bytes;
  if (method === 'GET' && !answer.body.equals(expected)) fail('other bytes');
  if (answer.headers['content-length'] !== String(expected.length)) fail('another length');
}

class Read implements Command {
  readonly user: User | undefined;
  readonly repository: Repository;
  readonly blob: number;
  readonly replica: number;
  readonly method: 'GET' | 'HEAD';
  readonly isPart: boolean;

  constructor(
    user: User | undefined,
    repository: Repository,
    blob: number,
    replica: number,
    isHead: boolean,
    part: boolean,
  ) {
    this.user = user;
    this.repository = repository;
    this.blob = blob;
    this.replica = replica;
    this.method = isHead ? 'HEAD' : 'GET';
    this.isPart = part && !isHead;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, { replicas }: Real): Promise<void> {
    const mirror = replicas[this.replica]!;
    const path = `/v2/up/${this.repository}/blobs/${blobs[this.blob]!.digest}`;
    const headers: Record<string, string> = {
      ...(this.user && { authorization: basic(`${this.user}:${this.user}`) }),
      ...(this.isPart && { range: 'bytes=5-9' }),
    };
    judge(model, this, await (this.method === 'HEAD' ? mirror.head(path, headers) : mirror.get(path, headers)));
  }

  toString(): string {
    const part = this.isPart ? ' (a part)' : '';
    return `${this.method}${part} by ${this.user ?? 'nobody'} of blob ${this.blob} in ${this.repository} at replica ${this.replica}`;
  }
}

/** A command that is no more than what it does. */
function step(name: string, run: (model: Model, real: Real) => Promise<void> | void): Command {
  return { check: () => true, run: async (model, real) => run(model, real), toString: () => name };
}

const steps: fc.Arbitrary<Command>[] = [
  fc
    .tuple(
      fc.constantFrom<User | undefined>(...users, undefined),
      fc.constantFrom(...repositories),
      fc.nat(blobs.length - 1),
      fc.nat(1),
      fc.boolean(),
      fc.boolean(),
    )
    .map((parts) => new Read(...parts)),
  fc.constantFrom(...users).map((user) =>
    step(`${user} is a user, or is none any more`, (model, real) => {
      if (!model.present.delete(user)) model.present.add(user);
      return real.writeUsers(model.present);
    }),
  ),
  fc.nat(1).map((at) => step(`replica ${at} is started again`, (_, real) => real.restart(at))),
  fc.tuple(fc.nat(1), fc.nat(fillers.length - 1)).map(([at, filler]) =>
    step(`filler ${filler} at replica ${at}`, async (_, { replicas }) => {
      await replicas[at]!.get(`/v2/up/team/open/blobs/${fillers[filler]!.digest}`);
    }),
  ),
  fc.constant(step('Redis loses everything', (_, real) => real.forgetAll())),
  fc.boolean().map((isUp) =>
    step(`the registry is ${isUp ? 'up' : 'down'}`, (model, real) => {
      model.isUp = isUp;
      real.setUp(isUp);
    }),
  ),
];

async function prepare(t: Test): Promise<Real> {
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  for (const [at, repository] of repositories.entries())
    for (const one of [shared, own[at]!]) registry.put(repository, one);
  for (const filler of fillers) registry.put('team/open', filler);
  const redis = await startRedis(t);
  const htpasswd = join(await temporaryFolder(t), 'users');
  await writeFile(htpasswd, '#\n');
  const stores = [await temporaryFolder(t), await temporaryFolder(t)];
  const start = (store: string) =>
    startTestMirror(t, {
      upstreams: { up: registry.url },
      store,
      config: {
        access: { mode: 'basic', htpasswd },
        repositories: Object.entries(pullers).map(([name, pull]) => ({ name: `up/${name}`, pull: [...pull] })),
        cache: {
          disk: { maxSize: '500KiB' },
          memory: { maxSize: '100KiB' },
          redis: { url: redis.url, maxSize: '400KiB' },
        },
        limits: { downloadResumes: 1, downloadResumeDelay: '1ms', wrongPasswords: 1_000_000 },
      },
    });
  const replicas = [await start(stores[0]!), await start(stores[1]!)];
  return {
    replicas,
    async restart(at) {
      await replicas[at]!.stop();
      replicas[at] = await start(stores[at]!);
    },
    writeUsers: (present) =>
      writeFile(htpasswd, `#${Math.random()}\n${[...present].map((user) => `${user}:${hashes[user]}\n`).join('')}`),
    setUp(isUp) {
      registry.script = isUp ? undefined : (_, response) => Boolean(response.writeHead(503).end());
    },
    forgetAll: () => void redis.cli('FLUSHALL'),
  };
}

void t.test(
  '1, 2, 56. two replicas, whatever happens: no byte without a right, every byte with its digest',
  { skip },
  async (t) => {
    const real = await prepare(t);
    let count = 0;
    const model = fc.asyncProperty(fc.commands(steps, { maxCommands: 60, size: 'max' }), async (commands) => {
      const first = { present: new Set<User>(['alice', 'bob']), isUp: true };
      await real.writeUsers(first.present);
      real.setUp(true);
      await fc.asyncModelRun(() => ({ model: first, real }), commands);
      count += [...commands].length;
    });
    await fc.assert(model, { numRuns: 60, endOnFailure: false });
    t.ok(count > 500, `${count} steps`);
  },
);
