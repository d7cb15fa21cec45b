import { createHash } from 'node:crypto';
import { createClient, createCluster, createSentinel, ErrorReply, RESP_TYPES } from '@redis/client';
import KeyvRedis from '@keyv/redis';
import { Keyv } from 'keyv';
import { createBreaker } from './breaker.ts';
import type { Breaker } from './breaker.ts';

/** Where a Redis or Valkey is, in one of its three shapes. */
export type RedisPlace =
  | { readonly kind: 'single'; readonly url: URL }
  | { readonly kind: 'sentinel'; readonly master: string; readonly nodes: readonly HostPort[] }
  | { readonly kind: 'cluster'; readonly nodes: readonly HostPort[] };

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface RedisOptions {
  readonly place: RedisPlace;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: { readonly ca?: string | undefined } | undefined;
  /** Before every key, so that other data may live beside. */
  readonly prefix: string;
  readonly connectMs: number;
  /** How long Redis may be silent before it is left alone. */
  readonly stallMs: number;
  /** Commands that wait for an answer on one connection. */
  readonly maxQueue: number;
  /** @param error why it is left alone; undefined when it is used again */
  onChange(error: unknown): void;
}

export type Argument = string | Buffer;
/** What Redis answers; texts come as buffers. */
export type RedisReply = Buffer | number | string | null | undefined | readonly RedisReply[];

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

export function script(text: string): Script {
  return { text, sha1: createHash('sha1').update(text).digest('hex') };
}

/**
 * Connects, and goes on trying when that fails: `ready` rejects with the reason then, and the result works as soon as
 * Redis does.
 */
export function openRedis(options: RedisOptions): { redis: Redis; ready: Promise<void> } {
  const { prefix, stallMs, onChange } = options;
  const small = connect(options);
  const bulk = connect(options);
  const messages = connect(options);
  const all = [small, bulk, messages];
  const wanted = new Map<string, (message: string) => void>();
  const breaker: Breaker = createBreaker({
    name: 'redis',
    stallMs,
    retryMs: 250,
    maxRetryMs: 2000,
    async probe() {
      await Promise.all(all.map((connection) => connection.open()));
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
    return breaker.run(() => connection.send(key, args));
  }

  const redis: Redis = {
    prefix,
    get isAway() {
      return breaker.isOpen;
    },
    command: (key, ...args) => through(small, key, args),
    transfer: (key, ...args) => through(bulk, key, args),
    async run({ text, sha1 }, keys, ...args) {
      // Scripts carry the chunks, so they are large values as well.
      const rest = [String(keys.length), ...keys, ...args];
      try {
        return await through(bulk, keys[0], ['EVALSHA', sha1, ...rest]);
      } catch (error) {
        if (!(error instanceof ErrorReply) || !error.message.startsWith('NOSCRIPT')) throw error;
        return through(bulk, keys[0], ['EVAL', text, ...rest]);
      }
    },
    records: (namespace) => {
      const client = small.client as ConstructorParameters<typeof KeyvRedis>[0];
      const store = new KeyvRedis(client, { throwOnErrors: true, throwOnConnectError: true, keyPrefixSeparator: ':' });
      store.on('error', () => undefined);
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

/** What the three kinds of clients have in common. */
interface Connection {
  readonly client: unknown;
  /** What it last failed with. */
  trouble(): Error | undefined;
  /** Anew, unless that was just done: it may be dead without saying so, or stuck on a server that is gone. */
  open(): Promise<void>;
  send(key: string | undefined, args: readonly Argument[]): Promise<RedisReply>;
  subscribe(channel: string, listener: (message: string) => void): Promise<void>;
  close(): Promise<void>;
}

const asBuffers = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } } as const;

function connect(options: RedisOptions): Connection {
  const { place, username, password, connectMs, stallMs, maxQueue, tls } = options;
  const socket = {
    connectTimeout: connectMs,
    // A connection that is dead without saying so is found out by the pings below.
    socketTimeout: Math.max(20_000, 4 * stallMs),
    reconnectStrategy: (tries: number) => Math.min(50 * 2 ** tries, 2000),
    ...(tls && { tls: true as const, ...(tls.ca !== undefined && { ca: tls.ca }) }),
  };
  const common = {
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    commandsQueueMaxLength: maxQueue,
    disableOfflineQueue: true,
    pingInterval: 5000,
    disableClientInfo: true,
    socket,
  };
  switch (place.kind) {
    case 'single': {
      const url = new URL(place.url);
      if (tls) url.protocol = 'rediss:';
      const client = createClient({ ...common, url: url.href });
      return {
        ...lifeOf(client, connectMs),
        send: (_key, args) => client.sendCommand<RedisReply>(args, asBuffers),
        subscribe: async (channel, listener) => {
          await client.subscribe(channel, listener);
        },
      };
    }
    case 'sentinel': {
      const client = createSentinel({
        name: place.master,
        sentinelRootNodes: place.nodes.map(({ host, port }) => ({ host, port })),
        nodeClientOptions: common,
        sentinelClientOptions: { socket: { connectTimeout: connectMs } },
        scanInterval: 1000,
        passthroughClientErrorEvents: true,
      });
      return {
        ...lifeOf(client, connectMs),
        send: (_key, args) => client.sendCommand<RedisReply>(false, [...args], asBuffers),
        subscribe: async (channel, listener) => {
          await client.subscribe(channel, listener);
        },
      };
    }
    case 'cluster': {
      const client = createCluster({
        rootNodes: place.nodes.map(({ host, port }) => ({ socket: { host, port } })),
        defaults: common,
      });
      return {
        ...lifeOf(client, connectMs),
        send: (key, args) => client.sendCommand<RedisReply>(key, false, [...args], asBuffers),
        subscribe: async (channel, listener) => {
          await client.subscribe(channel, listener);
        },
      };
    }
    default:
      return place satisfies never;
  }
}

interface Life {
  readonly isOpen: boolean;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  connect(): Promise<unknown>;
  destroy(): unknown;
}

function lifeOf(client: Life, connectMs: number): Pick<Connection, 'client' | 'trouble' | 'open' | 'close'> {
  let openedMs = -Infinity;
  let trouble: Error | undefined;
  // Told by the commands that fail of it; without a listener it would end the program.
  client.on('error', (error) => (trouble = asError(error)));
  let opening: Promise<unknown> | undefined;

  async function reopen(): Promise<void> {
    if (client.isOpen) await client.destroy();
    await client.connect();
    openedMs = performance.now();
  }

  return {
    client,
    trouble: () => trouble,
    async open() {
      if (!opening && performance.now() - openedMs < connectMs) return;
      opening ??= reopen().finally(() => (opening = undefined));
      await opening;
    },
    async close() {
      try {
        await client.destroy();
      } catch {
        // It was never open.
      }
    },
  };
}

/** Where a name has several addresses, the failure is a list of failures without a text of its own. */
function asError(error: unknown): Error {
  if (error instanceof AggregateError && error.errors.length > 0) return asError(error.errors[0]);
  return error instanceof Error ? error : new Error(String(error));
}
