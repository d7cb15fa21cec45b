import { createHash } from 'node:crypto';
import { ErrorReply } from '@redis/client';
import KeyvRedis from '@keyv/redis';
import { Keyv } from 'keyv';
import { createBreaker } from './breaker.ts';
import type { Breaker } from './breaker.ts';
import { connect } from './redis-connection.ts';
import type { Argument, Connection, ConnectionOptions, RedisReply } from './redis-connection.ts';

export type { Argument, HostPort, RedisPlace, RedisReply } from './redis-connection.ts';

export interface RedisOptions extends ConnectionOptions {
  /** Before every key, so that other data may live beside. */
  readonly prefix: string;
  /** @param error why it is left alone; undefined when it is used again */
  onChange(error: unknown): void;
}

/** A Lua script, and the hash that Redis knows it by. */
export interface Script {
  readonly text: string;
  readonly sha1: string;
}

/** A Redis that is left alone while it is in trouble. Every method throws TierAway then, at once. */
export interface Redis {
  readonly prefix: string;
  readonly isAway: boolean;
  /** @param key decides the node in a cluster */
  command(key: string, ...args: Argument[]): Promise<RedisReply>;
  /** The same on a connection for large values, which small questions do not queue up behind. */
  transfer(key: string, ...args: Argument[]): Promise<RedisReply>;
  /** Atomic; all keys must have one hash tag. */
  run(script: Script, keys: readonly string[], ...args: Argument[]): Promise<RedisReply>;
  /** Small records; keyv knows nothing of the trouble, so calls of it belong into `guard`. */
  records(namespace: string): Keyv;
  guard<T>(action: () => Promise<T>): Promise<T>;
  publish(channel: string, message: string): Promise<void>;
  subscribe(channel: string, listener: (message: string) => void): Promise<void>;
  close(): Promise<void>;
}

type KeyvClient = KeyvRedis<unknown>['client'];

const maxRecordKinds = 50;

/** More than this is a large value. */
const maxSmallBytes = 64 * 1024;

export function script(text: string): Script {
  return { text, sha1: createHash('sha1').update(text).digest('hex') };
}

/**
 * Connects, and goes on trying when that fails: `ready` rejects with the reason then, and the result works as soon as
 * Redis does.
 */
export function openRedis(options: RedisOptions): { redis: Redis; ready: Promise<void> } {
  const { prefix, stallMs, onChange } = options;
  const onMoved = (error: Error) => breaker.trip(error);
  const small = connect(options, onMoved);
  const bulk = connect(options, onMoved);
  const messages = connect(options, onMoved);
  const all = [small, bulk, messages];
  const stores: KeyvRedis<unknown>[] = [];
  const wanted = new Map<string, (message: string) => void>();
  const breaker: Breaker = createBreaker({
    name: 'redis',
    stallMs,
    retryMs: 250,
    maxRetryMs: 2000,
    async probe() {
      await Promise.all(all.map((connection) => connection.open()));
      for (const store of stores) store.client = small.client as KeyvClient;
      await Promise.all([small.send(undefined, ['PING']), bulk.send(undefined, ['PING'])]);
      await tryWrite();
      await resubscribe();
    },
    isAway: isAwayError,
    onChange,
  });

  /** A replica answers a PING as well. A full Redis refuses a write, and can be used. */
  async function tryWrite(): Promise<void> {
    const key = `${prefix}probe`;
    await small.send(key, ['SET', key, '', 'PX', '1']).catch((error: unknown) => {
      if (isAwayError(error)) throw error;
    });
  }

  /** Where it is subscribed to already, nothing happens. */
  async function resubscribe(): Promise<void> {
    for (const [channel, listener] of wanted) await messages.subscribe(channel, listener);
  }

  function through(connection: Connection, key: string | undefined, args: readonly Argument[]): Promise<RedisReply> {
    const run = connection === bulk ? breaker.runLarge : breaker.run;
    return run(() => connection.send(key, args));
  }

  const redis: Redis = {
    prefix,
    get isAway() {
      return breaker.isOpen;
    },
    command: (key, ...args) => through(small, key, args),
    transfer: (key, ...args) => through(bulk, key, args),
    async run({ text, sha1 }, keys, ...args) {
      // Some scripts carry a chunk.
      const connection = args.some((arg) => arg.length > maxSmallBytes) ? bulk : small;
      const rest = [String(keys.length), ...keys, ...args];
      try {
        return await through(connection, keys[0], ['EVALSHA', sha1, ...rest]);
      } catch (error) {
        if (!(error instanceof ErrorReply) || !error.message.startsWith('NOSCRIPT')) throw error;
        return through(connection, keys[0], ['EVAL', text, ...rest]);
      }
    },
    records: (namespace) => {
      const client = small.client as KeyvClient;
      // Each kind of record listens to it.
      client.setMaxListeners(maxRecordKinds);
      const store = new KeyvRedis(client, { throwOnErrors: true, throwOnConnectError: true, keyPrefixSeparator: ':' });
      store.on('error', () => undefined);
      stores.push(store);
      return new Keyv({ store, namespace: prefix + namespace, useKeyPrefix: false, throwOnErrors: true });
    },
    guard: (action) => breaker.run(action),
    async publish(channel, message) {
      await through(small, undefined, ['PUBLISH', channel, message]);
    },
    async subscribe(channel, listener) {
      wanted.set(channel, listener);
      if (!breaker.isOpen) await breaker.run(resubscribe);
    },
    async close() {
      breaker.close();
      await Promise.all(all.map((connection) => connection.close()));
    },
  };
  const ready = startUp(all, options.connectMs).catch((error: unknown) => {
    breaker.trip(error);
    throw error;
  });
  ready.catch(() => undefined);
  return { redis, ready };
}

async function startUp(all: readonly Connection[], connectMs: number): Promise<void> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(() => limit.reject(new Error(`no answer within ${connectMs} ms`)), connectMs);
  try {
    await Promise.race([Promise.all(all.map((connection) => connection.open())), limit.promise]);
    await Promise.race([all[0]!.send(undefined, ['PING']), limit.promise]);
  } catch (error) {
    // The clients go on trying: what they met says more than that it took too long.
    throw all.map(({ trouble }) => trouble()).find((met) => met !== undefined) ?? error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Is it Redis that is in trouble, or was only this command refused? A full Redis refuses writes and can be read; a
 * record that is not JSON is nobody's trouble but its own.
 */
function isAwayError(error: unknown): boolean {
  if (!(error instanceof ErrorReply)) return !(error instanceof SyntaxError);
  return /^(?:LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|NOAUTH|WRONGPASS|NOPERM|TRYAGAIN)/.test(error.message);
}
