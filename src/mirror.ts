import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startAdmin } from './admin/server.ts';
import { createDiskTier } from './cache/disk.ts';
import { createMemoryTier } from './cache/memory.ts';
import { createRecords } from './cache/records.ts';
import type { Records } from './cache/records.ts';
import { openSqliteRecords } from './cache/sqlite.ts';
import type { Store } from './cache/tier.ts';
import { createStore } from './cache/tiers.ts';
import { parseAddress, resolveSet } from './config.ts';
import type { Config } from './config.ts';
import { startEdge } from './http/server.ts';
import type { Answered, Endpoint } from './http/server.ts';
import type { Log } from './log.ts';
import { createMetrics } from './metrics.ts';
import type { Metrics } from './metrics.ts';
import { parsePlatform } from './oci/platform.ts';
import type { PlatformSet } from './oci/platform.ts';
import { addressRule } from './pull/choose-platform.ts';
import { createPull } from './pull/pull.ts';
import type { PullObserver, PullRules } from './pull/parts.ts';
import { createCredentials, dockerConfigSource } from './upstream/credentials.ts';
import type { CredentialSource } from './upstream/credentials.ts';
import { createRegistries } from './upstream/registries.ts';
import { createRegistry } from './upstream/registry.ts';
import type { Registry } from './upstream/registry.ts';

/** A running mirror. */
export interface Mirror {
  /** The ports of `listen`, in its order; of use where the configuration says 0. */
  readonly ports: readonly number[];
  readonly adminPort: number | undefined;
  /** Finishes what runs, within the grace that the configuration gives. */
  stop(): Promise<void>;
}

/** Puts the parts together, as the configuration says. This is the map of what depends on what. */
export async function startMirror(config: Config, log: Log, now: () => number = Date.now): Promise<Mirror> {
  const closers: (() => unknown)[] = [];
  const stop = async () => {
    for (const close of closers.splice(0).toReversed()) await close();
  };
  try {
    return { ...(await start(config, log, now, closers)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** @param closers what ends each part, in the order of their starts */
async function start(
  config: Config,
  log: Log,
  now: () => number,
  closers: (() => unknown)[],
): Promise<Omit<Mirror, 'stop'>> {
  const { limits } = config;
  const metrics = createMetrics();
  const sets = new Map<string, PlatformSet>(
    Object.entries(config.platforms.sets).map(([name, set]) => [name, resolveSet(set, new Map())]),
  );
  const store = await openStore(config, log, metrics, closers);
  const records = openRecords(config, log, metrics, now, closers);
  const upstreams = await openRegistries(config, metrics, now, closers);
  const pull = createPull({
    store,
    records,
    registries: createRegistries(upstreams, config.defaultUpstream),
    rules: pullRules(config, sets),
    observer: observe(log, metrics.pull),
    now,
  });

  closers.push(() => pull.close());

  let isReady = false;
  const address = config.admin.address === null ? undefined : parseAddress(config.admin.address);
  const admin = address && (await startAdmin({ ...address, isReady: () => isReady, metrics: metrics.render }));
  if (admin) closers.push(admin.stop);
  const edge = await startEdge({
    endpoints: await Promise.all(config.listen.map((listener) => endpointOf(listener, sets))),
    limits: {
      maxConnections: limits.connections,
      maxHeaderBytes: limits.headerSize,
      headersTimeoutMs: limits.headersTimeout,
      requestTimeoutMs: limits.requestTimeout,
      keepAliveMs: limits.keepAlive,
      stallMs: limits.sendStall,
    },
    pull,
    onAnswered(answered) {
      metrics.answered(answered);
      logAnswer(log, answered);
    },
  });
  isReady = true;
  closers.push(() => {
    isReady = false;
    return edge.stop(limits.stopGrace);
  });
  return { ports: edge.ports, adminPort: admin?.port };
}

async function openStore(config: Config, log: Log, metrics: Metrics, closers: (() => unknown)[]): Promise<Store> {
  const { limits } = config;
  const { maxSize, maxBlobSize } = config.cache.memory;
  await mkdir(config.cache.disk.path, { recursive: true });
  const disk = await createDiskTier({
    path: config.cache.disk.path,
    maxVerified: limits.verifiedDigests,
    maxBufferBytes: limits.streamBuffers,
  });
  closers.push(() => disk.close());
  return createStore({
    memory: createMemoryTier({ maxBytes: maxSize, maxBlobBytes: maxBlobSize }),
    disk,
    maxMemoryBlobBytes: maxSize > 0 ? maxBlobSize : 0,
    onTrouble(tier, error) {
      metrics.tierTrouble(tier);
      log.warn({ tier, err: error }, 'a storage tier failed; going on without it');
    },
  });
}

function openRecords(
  config: Config,
  log: Log,
  metrics: Metrics,
  now: () => number,
  closers: (() => unknown)[],
): Records {
  const database = openSqliteRecords(join(config.cache.disk.path, 'records.sqlite'));
  closers.push(() => database.close());
  const onTrouble = (error: unknown) => {
    metrics.tierTrouble('records');
    log.warn({ err: error }, 'the records could not be used; going on without them');
  };
  const purging = setInterval(() => {
    try {
      database.purge(now());
    } catch (error) {
      onTrouble(error);
    }
  }, 60_000).unref();
  closers.push(() => clearInterval(purging));
  return createRecords(database.adapter, onTrouble);
}

async function openRegistries(
  config: Config,
  metrics: Metrics,
  now: () => number,
  closers: (() => unknown)[],
): Promise<Map<string, Registry>> {
  const upstreams = new Map<string, Registry>();
  for (const name of Object.keys(config.upstreams)) {
    const registry = await openRegistry(name, config, now, metrics);
    closers.push(() => registry.close());
    upstreams.set(name, registry);
  }
  return upstreams;
}

function pullRules(config: Config, sets: ReadonlyMap<string, PlatformSet>): PullRules {
  const { limits, platforms, tags } = config;
  const primaries = new Map(config.repositories.map(({ name, primary }) => [name, parsePlatform(primary)!]));
  const rules = tags.rules.map((rule) => ({
    matches: globOf(rule.pattern),
    freshMs: rule.fresh ?? Number.MAX_SAFE_INTEGER,
  }));
  return {
    platforms: {
      sets,
      hosts: new Map(Object.entries(platforms.hosts).map(([host, set]) => [host.toLowerCase(), resolveSet(set, sets)])),
      addresses: Object.entries(platforms.addresses).map(([cidr, set]) => addressRule(cidr, resolveSet(set, sets))),
      trustUserAgent: platforms.trustUserAgent,
    },
    onMissing: platforms.onMissing,
    freshMs: (key, tag) => rules.find(({ matches }) => matches.test(`${key}:${tag}`))?.freshMs ?? tags.fresh,
    missingMs: tags.missing,
    staleMs: tags.stale,
    primaryOf: (key) => primaries.get(key) ?? parsePlatform(platforms.primary)!,
    maxManifestBytes: limits.manifestSize,
    maxFlights: limits.downloads,
    maxWindowBytes: limits.downloadWindows,
    flight: {
      maxResumes: limits.downloadResumes,
      resumeDelayMs: limits.downloadResumeDelay,
      maxUnreadBytes: limits.unreadDownload,
    },
  };
}

/** `*` is any text; everything else is itself. */
function globOf(pattern: string): RegExp {
  const parts = pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`));
  return new RegExp(`^${parts.join('.*')}$`);
}

async function openRegistry(name: string, config: Config, now: () => number, metrics: Metrics): Promise<Registry> {
  const { limits } = config;
  const settings = config.upstreams[name]!;
  const url = new URL(settings.url);
  return createRegistry({
    name,
    url,
    credentials: createCredentials(credentialSource(settings, config.dockerConfig, url), now),
    ca: settings.ca === undefined ? undefined : await readFile(settings.ca, 'utf8'),
    proxy: settings.proxy === undefined ? undefined : new URL(settings.proxy),
    trustedHosts: settings.trustedHosts ?? [],
    maxManifestBytes: limits.manifestSize,
    limits: {
      maxConnections: limits.upstreamConnections,
      maxRequests: limits.upstreamRequests,
      connectTimeoutMs: limits.upstreamConnect,
      headersTimeoutMs: limits.upstreamHeaders,
      stallTimeoutMs: limits.upstreamStall,
      maxTokens: limits.upstreamTokens,
    },
    now,
    onAnswer: metrics.upstreamAnswered,
    onBytes: metrics.upstreamSent,
  });
}

/** A password in a file is read each time it is asked for, so that a rotated secret takes effect. */
function credentialSource(
  { credentials }: Config['upstreams'][string],
  dockerConfig: string | null,
  url: URL,
): CredentialSource {
  if (!credentials)
    return dockerConfig === null ? () => Promise.resolve(undefined) : dockerConfigSource(dockerConfig, url.host);
  const { username, password, passwordFile } = credentials;
  return async () => {
    const secret = passwordFile === undefined ? (password ?? '') : (await readFile(passwordFile, 'utf8')).trimEnd();
    return { kind: 'password', username, password: secret };
  };
}

async function endpointOf(
  listener: Config['listen'][number],
  sets: ReadonlyMap<string, PlatformSet>,
): Promise<Endpoint> {
  const { tls } = listener;
  return {
    ...parseAddress(listener.address)!,
    tls: tls && { cert: await readFile(tls.cert, 'utf8'), key: await readFile(tls.key, 'utf8') },
    set: listener.platforms === undefined ? undefined : resolveSet(listener.platforms, sets),
    view: listener.view ?? 'image',
    upstream: listener.upstream,
  };
}

function observe(
  log: Log,
  counters: Pick<PullObserver, 'flightStarted' | 'flightLanded' | 'platformLie' | 'stale'>,
): PullObserver {
  return {
    flightStarted: counters.flightStarted,
    flightLanded(digest, landing) {
      counters.flightLanded(digest, landing);
      if (landing.outcome === 'failed') log.warn({ digest, err: landing.error }, 'a download failed');
    },
    platformLie(repository, child) {
      counters.platformLie(repository, child);
      log.warn(
        { repository, child },
        'an index says another platform than the config of its child; answering with the whole index',
      );
    },
    stale(repository, tag, error) {
      counters.stale(repository, tag, error);
      log.warn({ repository, tag, err: error }, 'the upstream is in trouble; answering with what the tag last meant');
    },
    trouble: (what, error) => log.warn({ err: error }, `${what} failed; going on without`),
  };
}

function logAnswer(log: Log, { error, status, ...answered }: Answered): void {
  const line = { status, ...answered, ...(error !== undefined && { err: error }) };
  if (status === 500) log.error(line, 'request');
  else if (error !== undefined && status < 400) log.warn(line, 'request broken off');
  else if (status > 500) log.warn(line, 'request');
  else log.info(line, 'request');
}
