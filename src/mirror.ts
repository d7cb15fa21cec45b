import { createAddressLimits } from './access/addresses.ts';
import { startAdmin } from './admin/server.ts';
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
import type { Context, Team } from './wiring/context.ts';
import { openAdminActions } from './wiring/admin-actions.ts';
import { adminTrouble, createAdminApi } from './wiring/admin-api.ts';
import { createGenerations } from './wiring/generations.ts';
import { canonicalName } from './oci/host.ts';
import { liveOf, processReport } from './wiring/live.ts';
import type { ProcessReport } from './wiring/live.ts';

/** A running mirror. */
export interface Mirror {
  /** The ports of `listen`, in its order; of use where the configuration says 0. */
  readonly ports: readonly number[];
  readonly adminPort: number | undefined;
  /** What it has to tell of itself, for another process to put together with others. */
  report(): Promise<ProcessReport>;
  /**
   * Goes by another configuration from now on; requests that run end as they began.
   *
   * @throws ConfigError for what only a start can change, or what makes it unusable; the old one stays in force
   */
  reload(config: Config): Promise<void>;
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
  const { config, log, metrics, closers, team, now } = context;
  const { limits } = config;
  const generations = await createGenerations(context);
  closers.push(() => generations.close());
  const startedAtMs = now();
  const report = () => processReport(metrics, generations.now().work);
  const live = async () => {
    const { metrics: found, downloads } = await report();
    const { offline: isOffline, admin: listener } = generations.config();
    return liveOf(found, downloads, { nowMs: now(), startedAtMs, isOffline, mayAct: listener.act.length > 0 });
  };
  let isReady = false;
  // Of several workers, the process that started them answers for all.
  const address = config.admin.address === null || team ? undefined : parseAddress(config.admin.address);
  const admin =
    address &&
    (await startAdmin({
      ...address,
      hosts: config.admin.hosts.map(canonicalName),
      isReady: () => isReady,
      isOffline: () => generations.config().offline,
      metrics: metrics.render,
      api: createAdminApi(() => generations.now().work, live),
      actions: openAdminActions(context, generations, (by) => generations.change(by)),
      onTrouble: adminTrouble(log),
    }));
  if (admin) closers.push(admin.stop);
  if (['basic', 'token', 'upstream'].includes(config.access.mode)) warnOfPlainPasswords(config, log);
  const edge = await startEdge({
    endpoints: await Promise.all(config.listen.map((listener) => endpointOf(listener, context))),
    limits: {
      maxConnections: limits.connections,
      maxHeaderBytes: limits.headerSize,
      headersTimeoutMs: limits.headersTimeout,
      requestStallMs: limits.requestStall,
      keepAliveMs: limits.keepAlive,
      stallMs: limits.sendStall,
    },
    pseudonym: context.pseudonym,
    addresses: createAddressLimits({
      maxConnections: limits.connectionsPerAddress,
      requestsPerS: limits.requestsPerAddress,
      maxAddresses: limits.knownAddresses,
      now,
    }),
    serving: () => generations.now().serving,
    onAnswered(answered) {
      metrics.answered(answered);
      logAnswer(log, answered);
    },
  });
  isReady = true;
  closers.push(() => {
    isReady = false;
    return edge.stop(generations.config().limits.stopGrace);
  });
  return { ports: edge.ports, adminPort: admin?.port, report, reload: (next) => generations.replace(next) };
}

/** A password that crosses a network as it is belongs to whoever listens there. */
function warnOfPlainPasswords({ listen }: Config, log: Log): void {
  for (const { address, tls } of listen) {
    const { host } = parseAddress(address)!;
    if (tls || /^(?:127\.|localhost$|::1$)/.test(host)) continue;
    log.warn({ listen: address }, 'passwords reach this listener without encryption: give it tls, or put TLS in front');
  }
}

async function endpointOf({ address, tls }: Config['listen'][number], context: Context): Promise<Endpoint> {
  return { ...parseAddress(address)!, tls: tls && (await certificateFor(tls, context)) };
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

function logAnswer(log: Log, answered: Answered): void {
  const isQuiet = answered.status < 400 && answered.error === undefined;
  // Not so much as put together where nobody reads it.
  if (isQuiet && !log.isLevelEnabled('info')) return;
  const { error, status, ...rest } = answered;
  const line = { status, ...rest, ...(error !== undefined && { err: error }) };
  if (status === 500) log.error(line, 'request');
  else if (error !== undefined && status < 400) log.warn(line, 'request broken off');
  else if (status > 500) log.warn(line, 'request');
  else log.info(line, 'request');
}
