import { createAddressLimits } from './access/addresses.ts';
import { startAdmin } from './admin/server.ts';
import { resolveSet } from './config.ts';
import { parseAddress } from './config-values.ts';
import type { Config } from './config.ts';
import { newPseudonym } from './hops.ts';
import { openCertificate } from './http/certificates.ts';
import type { TlsPaths } from './http/certificates.ts';
import { startEdge } from './http/server.ts';
import type { Answered } from './http/answered.ts';
import type { Endpoint } from './http/server.ts';
import type { Tls } from './http/tls.ts';
import type { Log } from './log.ts';
import { createMetrics } from './metrics/metrics.ts';
import type { PlatformSet } from './oci/platform.ts';
import type { Context, Team } from './wiring/context.ts';
import { adminTrouble, createAdminApi } from './wiring/admin-api.ts';
import { openAccessParts } from './wiring/access-parts.ts';
import { startKeeper } from './wiring/keeper.ts';
import { liveOf, processReport } from './wiring/live.ts';
import type { ProcessReport } from './wiring/live.ts';
import { openPullWork } from './wiring/pull-parts.ts';
import { openPush } from './wiring/push-parts.ts';

/** A running mirror. */
export interface Mirror {
  /** The ports of `listen`, in its order; of use where the configuration says 0. */
  readonly ports: readonly number[];
  readonly adminPort: number | undefined;
  /** What it has to tell of itself, for another process to put together with others. */
  report(): Promise<ProcessReport>;
  /** Finishes what runs, within the grace that the configuration gives. */
  stop(): Promise<void>;
}

/** Puts the parts together, as the configuration says. This is the map of what depends on what. */
export async function startMirror(
  config: Config,
  log: Log,
  now: () => number = Date.now,
  team?: Team,
): Promise<Mirror> {
  const closers: (() => unknown)[] = [];
  const stop = async () => {
    for (const close of closers.splice(0).toReversed()) await close();
  };
  try {
    const pseudonym = newPseudonym();
    return { ...(await start({ config, log, metrics: createMetrics(), now, closers, team, pseudonym })), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(context: Context & { pseudonym: string }): Promise<Omit<Mirror, 'stop'>> {
  const { config, log, metrics, closers, team } = context;
  const { limits } = config;
  const work = await openPullWork(context);
  const { access, tokens } = await openAccessParts(context, work.keyOf);
  const { pull, sets } = work;
  const startedAtMs = context.now();
  const report = () => processReport(metrics, work);
  const live = async () => {
    const { metrics: found, downloads } = await report();
    return liveOf(found, downloads, { nowMs: context.now(), startedAtMs, isOffline: config.offline });
  };
  let isReady = false;
  // Of several workers, the process that started them answers for all.
  const address = config.admin.address === null || team ? undefined : parseAddress(config.admin.address);
  const admin =
    address &&
    (await startAdmin({
      ...address,
      isReady: () => isReady,
      isOffline: config.offline,
      metrics: metrics.render,
      api: createAdminApi(work, live),
      onTrouble: adminTrouble(log),
    }));
  if (admin) closers.push(admin.stop);
  if (['basic', 'token', 'upstream'].includes(config.access.mode)) warnOfPlainPasswords(config, log);
  const edge = await startEdge({
    endpoints: await Promise.all(config.listen.map((listener) => endpointOf(listener, sets, context))),
    limits: {
      maxConnections: limits.connections,
      maxHeaderBytes: limits.headerSize,
      headersTimeoutMs: limits.headersTimeout,
      requestStallMs: limits.requestStall,
      keepAliveMs: limits.keepAlive,
      stallMs: limits.sendStall,
    },
    pseudonym: context.pseudonym,
    access,
    addresses: createAddressLimits({
      maxConnections: limits.connectionsPerAddress,
      requestsPerS: limits.requestsPerAddress,
      maxAddresses: limits.knownAddresses,
      now: context.now,
    }),
    tokens,
    pull,
    push: openPush(context, work.storage),
    onAnswered(answered) {
      metrics.answered(answered);
      logAnswer(log, answered);
    },
  });
  // Of several workers, the process that started them does it for all.
  if (!team) startKeeper(context, work);
  isReady = true;
  closers.push(() => {
    isReady = false;
    return edge.stop(limits.stopGrace);
  });
  return { ports: edge.ports, adminPort: admin?.port, report };
}

/** A password that crosses a network as it is belongs to whoever listens there. */
function warnOfPlainPasswords({ listen }: Config, log: Log): void {
  for (const { address, tls } of listen) {
    const { host } = parseAddress(address)!;
    if (tls || /^(?:127\.|localhost$|::1$)/.test(host)) continue;
    log.warn({ listen: address }, 'passwords reach this listener without encryption: give it tls, or put TLS in front');
  }
}

async function endpointOf(
  listener: Config['listen'][number],
  sets: ReadonlyMap<string, PlatformSet>,
  context: Context,
): Promise<Endpoint> {
  const { tls } = listener;
  return {
    ...parseAddress(listener.address)!,
    tls: tls && (await certificateFor(tls, context)),
    set: listener.platforms === undefined ? undefined : resolveSet(listener.platforms, sets),
    view: listener.view ?? 'image',
    upstream: listener.upstream,
  };
}

/** How often the files of certificates are looked at: a renewal comes days before it is needed. */
const certificateCheckMs = 5000;

async function certificateFor(paths: TlsPaths, { log, closers }: Context): Promise<Tls> {
  const certificate = await openCertificate({
    paths,
    everyMs: certificateCheckMs,
    onRenewed: () => log.info({ cert: paths.cert }, 'the certificate was renewed'),
    onTrouble: (error) => log.error({ err: error }, 'the certificate was not renewed; the last one stays in use'),
  });
  closers.push(() => certificate.close());
  return certificate;
}

function logAnswer(log: Log, { error, status, ...answered }: Answered): void {
  const line = { status, ...answered, ...(error !== undefined && { err: error }) };
  if (status === 500) log.error(line, 'request');
  else if (error !== undefined && status < 400) log.warn(line, 'request broken off');
  else if (status > 500) log.warn(line, 'request');
  else log.info(line, 'request');
}
