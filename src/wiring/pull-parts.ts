import type { Config } from '../config.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseRepositoryName } from '../oci/reference.ts';
import { createPull } from '../pull/pull.ts';
import type { Pull } from '../pull/pull.ts';
import { createReading } from '../pull/reading.ts';
import { createHostedRegistry } from '../push/hosted-registry.ts';
import type { Download } from '../pull/blobs.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { createRegistries } from '../upstream/registries.ts';
import type { Registries } from '../upstream/registries.ts';
import { createPreferred, createTraffic } from '../upstream/yielding.ts';
import type { Traffic } from '../upstream/yielding.ts';
import { limitBandwidth } from './bandwidth.ts';
import { openCallerRights } from './caller-rights.ts';
import type { Context } from './context.ts';
import { observe } from './observe.ts';
import { namedSets, pullRules } from './pull-rules.ts';
import { repositoryRules } from './repository-rules.ts';
import { openStorage } from './storage.ts';
import type { Storage } from './storage.ts';
import { openUpstreams } from './upstreams.ts';
import type { Upstreams } from './upstreams.ts';

/** Everything but the listeners: what a server answers from, and what the commands work on beside it. */
export interface PullWork {
  readonly storage: Storage;
  readonly pull: Pull;
  readonly upstreams: Upstreams;
  readonly sets: ReadonlyMap<string, PlatformSet>;
  /** What clients are being sent: work in the background yields to it. */
  readonly traffic: Traffic;
  /** Downloads that run, those in the background as well. */
  downloads(): Download[];
  /** Pulls from the same store over upstreams that are asked in another way. Its downloads are its own. */
  over(change: (upstream: Upstream) => Upstream): Pull;
  /** The key of a repository by a name that clients use; undefined for what is none of this mirror's. */
  keyOf(name: string, fallback: string | undefined): string | undefined;
}

export async function openPullWork(context: Context): Promise<PullWork> {
  const { config, log, metrics, now, closers } = context;
  const sets = namedSets(config);
  const rules = pullRules(config, sets);
  // Whoever runs a command beside a store can read its files.
  const own = context.isCommand ? { ...rules, pullersOf: () => ['anonymous'] } : rules;
  const storage = await openStorage(context);
  const upstreams = await openUpstreams(context);
  const callers = openCallerRights(context, storage.records, upstreams);
  const pulls: Pull[] = [];
  const reading = createReading(config.cache.memory.maxDocuments);
  const traffic = createTraffic();
  const limited = limitBandwidth(context, storage.graph);
  const over: PullWork['over'] = (change) => {
    const changed = new Map([...upstreams.all].map(([name, upstream]) => [name, change(limited(upstream))]));
    const pull = createPull({
      store: storage.store,
      records: storage.records,
      fleets: storage.fleets,
      graph: storage.graph,
      registries: createRegistries(changed, config.defaultUpstream, hostedRegistry(config, storage)),
      reading,
      rules: own,
      callers,
      observer: observe(log, metrics.pull),
      holding: storage.holding,
      now,
    });
    pulls.push(pull);
    closers.push(() => pull.close());
    return pull;
  };
  const registries = createRegistries(upstreams.all, config.defaultUpstream, hostedRegistry(config, storage));
  const work: PullWork = {
    storage,
    pull: over((upstream) => createPreferred(upstream, traffic)),
    upstreams,
    sets,
    traffic,
    downloads: () => pulls.flatMap((pull) => pull.downloads()),
    over,
    keyOf: keysOf(registries),
  };
  return work;
}

function keysOf(registries: Registries): PullWork['keyOf'] {
  return (name, fallback) => {
    // A client that has the platform in its paths takes it for a part of the name.
    const plain = name.replace(/^p\/[^/]+\//, '');
    try {
      return registries.find(parseRepositoryName(plain), undefined, fallback).key;
    } catch {
      return undefined;
    }
  };
}

function hostedRegistry(config: Config, { hosted }: Storage): (repository: string) => Upstream | undefined {
  if (!hosted) return () => undefined;
  const { hostedOf } = repositoryRules(config);
  const registry = createHostedRegistry(hosted.ledger, hosted.content, config.limits.manifestSize);
  return (repository) => hostedOf(repository) && registry;
}
