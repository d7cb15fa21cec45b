import { createClient, createCluster, createSentinel, RESP_TYPES } from '@redis/client';

/** Where a Redis or Valkey is, in one of its three shapes. */
export type RedisPlace =
  | { readonly kind: 'single'; readonly url: URL }
  | { readonly kind: 'sentinel'; readonly master: string; readonly nodes: readonly HostPort[] }
  | { readonly kind: 'cluster'; readonly nodes: readonly HostPort[] };

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionOptions {
  readonly place: RedisPlace;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: { readonly ca?: string | undefined } | undefined;
  readonly connectMs: number;
  /** How long Redis may be silent before it is left alone. */
  readonly stallMs: number;
  /** Commands that wait for an answer on one connection. */
  readonly maxQueue: number;
}

export type Argument = string | Buffer;
/** What Redis answers; texts come as buffers. */
export type RedisReply = Buffer | number | string | null | undefined | readonly RedisReply[];

/** What the three kinds of clients have in common. */
export interface Connection {
  /** Another one after each time that it was opened. */
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

/** @param onMoved the sentinels name another server now, and this connection should be opened again */
export function connect(options: ConnectionOptions, onMoved: (error: Error) => void): Connection {
  const { place, username, password, connectMs, stallMs, maxQueue, tls } = options;
  // A connection that is dead without saying so is found out by the pings below.
  const socketTimeout = Math.max(20_000, 4 * stallMs);
  const secure = tls ? { tls: true as const, ...(tls.ca !== undefined && { ca: tls.ca }) } : {};
  const socket = {
    connectTimeout: connectMs,
    socketTimeout,
    reconnectStrategy: (tries: number) => Math.min(50 * 2 ** tries, 2000),
    ...secure,
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
      return connectionOf(
        connectMs,
        () => createClient({ ...common, url: url.href, socket: { ...socket } }),
        (client, _key, args) => client.sendCommand(args, asBuffers),
        // Destroyed while it connects, it takes itself for ready: it would ping for ever, and no process would end.
        (client) => (client.options.pingInterval = 0),
      );
    }
    case 'sentinel':
      return connectionOf(
        connectMs,
        () => {
          const client = createSentinel({
            name: place.master,
            sentinelRootNodes: place.nodes.map(({ host, port }) => ({ host, port })),
            nodeClientOptions: { ...common, socket: { ...socket, reconnectStrategy: giveUpSoon } },
            sentinelClientOptions: {
              pingInterval: 5000,
              socket: { connectTimeout: connectMs, socketTimeout, ...secure },
            },
            scanInterval: 1000,
            passthroughClientErrorEvents: true,
          });
          // The client does not always take its subscriptions along to the next server; one that is made anew does.
          client.on('topology-change', ({ type }) => {
            if (type === 'MASTER_CHANGE' && client.isReady) onMoved(new Error(`${place.master} is another server now`));
          });
          return client;
        },
        (client, _key, args) => client.sendCommand(false, [...args], asBuffers),
      );
    case 'cluster':
      return connectionOf(
        connectMs,
        () =>
          createCluster({
            rootNodes: place.nodes.map(({ host, port }) => ({ socket: { host, port } })),
            defaults: common,
          }),
        (client, key, args) => client.sendCommand(key, false, [...args], asBuffers),
      );
    default:
      return place satisfies never;
  }
}

/**
 * A client of sentinels asks them again only when the server that they named cannot be reached. This message is the
 * one that it does not print.
 */
function giveUpSoon(tries: number): number | Error {
  return tries < 3 ? 50 * 2 ** tries : new Error('no valid master node');
}

interface Client {
  readonly isOpen: boolean;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  connect(): Promise<unknown>;
  subscribe(channel: string, listener: (message: string) => void): Promise<unknown>;
  destroy(): unknown;
}

function connectionOf<C extends Client>(
  connectMs: number,
  make: () => C,
  send: (client: C, key: string | undefined, args: readonly Argument[]) => Promise<RedisReply>,
  silence: (client: C) => void = () => undefined,
): Connection {
  let client = makeHeard();
  let openedMs = -Infinity;
  let trouble: Error | undefined;
  let opening: Promise<unknown> | undefined;

  function makeHeard(): C {
    const made = make();
    // Told by the commands that fail of it; without a listener it would end the program.
    made.on('error', (error) => (trouble = asError(error)));
    return made;
  }

  async function close(): Promise<void> {
    silence(client);
    try {
      await client.destroy();
    } catch {
      // It was never open, or has given up.
    }
  }

  async function reopen(): Promise<void> {
    if (client.isOpen) {
      void close();
      client = makeHeard();
    }
    await client.connect();
    openedMs = performance.now();
  }

  return {
    get client() {
      return client;
    },
    trouble: () => trouble,
    async open() {
      if (!opening && performance.now() - openedMs < connectMs) return;
      opening ??= reopen().finally(() => (opening = undefined));
      await opening;
    },
    send: (key, args) => send(client, key, args),
    async subscribe(channel, listener) {
      await client.subscribe(channel, listener);
    },
    close,
  };
}

/** Where a name has several addresses, the failure is a list of failures without a text of its own. */
function asError(error: unknown): Error {
  if (error instanceof AggregateError && error.errors.length > 0) return asError(error.errors[0]);
  return error instanceof Error ? error : new Error(String(error));
}
