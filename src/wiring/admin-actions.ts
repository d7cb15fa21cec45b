import { basicChallenge } from '../access/access.ts';
import type { Access } from '../access/access.ts';
import { requireAmong } from '../access/identity.ts';
import type { AdminActions } from '../admin/actions.ts';
import { imageName } from '../airgap/image-tree.ts';
import { warm } from '../airgap/warm.ts';
import { contentKey } from '../cache/records.ts';
import { ConfigError } from '../config.ts';
import type { Config } from '../config.ts';
import { NarrowsError } from '../errors.ts';
import type { Repeats } from '../http/repeats.ts';
import type { Log } from '../log.ts';
import { parseImageName, parseRepositoryName } from '../oci/reference.ts';
import { platformsOf } from './admin-api.ts';
import { warmParts } from './airgap-parts.ts';
import type { Context } from './context.ts';
import type { Generations } from './generations.ts';
import type { PullWork } from './pull-parts.ts';

export interface ActionsWiring {
  /** What is so now. */
  now(): { readonly config: Config; readonly work: PullWork; readonly access: Access; readonly repeats: Repeats };
  readonly log: Log;
  clock(): number;
  /** Goes by another configuration; undefined where that is not for one process to say. */
  readonly change: Generations['change'] | undefined;
  setLevel(level: string): void;
  readonly signal: AbortSignal;
}

/** Where images go that nobody named a set for. */
const set = 'default';
const maxWarming = 20;
const levels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'];

/** What operators do by way of the admin listener, each a line of the log. */
export function createAdminActions({ now, log, clock, change, setLevel, signal }: ActionsWiring): AdminActions {
  const warming = new Set<string>();
  const observer = { planned: () => undefined, received: () => undefined, finished: () => undefined };
  const onWait = (upstream: string, waitMs: number, why: string) =>
    log.info({ upstream, waitMs }, `warming waits: ${why}`);

  function find(image: string) {
    const { name, reference } = parseImageName(image);
    const source = now().work.pull.reader.find(name);
    return { source, reference, name: imageName({ repository: parseRepositoryName(source.key), reference }) };
  }

  return {
    async require({ authorization, address }) {
      const { config, access } = now();
      const by = await access.identify({ authorization, address });
      if (by.scopes)
        throw new NarrowsError('denied', 'A token is for pulling and pushing; log in with a password here.');
      // A browser knows no other way than the one with a password.
      const who = { ...by, ...(by.challenge && { challenge: basicChallenge }) };
      requireAmong(who, config.admin.act, 'admin.act in the configuration says who may do this.');
    },

    warm(image, names) {
      const { config, work } = now();
      const { source, reference, name } = find(image);
      const platforms = platformsOf(names, work.sets);
      if (warming.has(name)) return Promise.resolve({ image: name, status: 'is being warmed already' });
      if (warming.size >= maxWarming) {
        throw new NarrowsError('overloaded', `${maxWarming} images are being warmed already.`, { retryAfterS: 30 });
      }
      warming.add(name);
      const parts = warmParts({ config, work, signal, onWait, now: clock }, observer);
      const wanted = { repository: parseRepositoryName(source.key), reference, platforms, withReferrers: true };
      warm(parts, set, [wanted])
        .then(([report]) => log.info({ image: name, status: report?.status, problems: report?.problems }, 'warmed'))
        .catch((error: unknown) => log.warn({ image: name, err: error }, 'an image could not be warmed'))
        .finally(() => warming.delete(name));
      return Promise.resolve({ image: name, platforms: names, set, status: 'is being warmed' });
    },

    unpin(image) {
      const { name } = find(image);
      const { sets } = now().work.storage.catalog;
      const from = sets.all().filter((one) => sets.remove(one.name, name));
      log.info({ image: name, sets: from.map((one) => one.name) }, 'unpinned');
      return Promise.resolve({ image: name, sets: from.map((one) => one.name) });
    },

    async purge(image) {
      const { source, reference, name } = find(image);
      const { store, records, catalog, disk, memory, hosted } = now().work.storage;
      if (source.isHosted) {
        throw new NarrowsError(
          'denied',
          `${source.key} is hosted here: delete what is in it by the registry's own API.`,
        );
      }
      const tagKey = `${source.key}:${reference.kind === 'tag' ? reference.tag : ''}`;
      const root = reference.kind === 'tag' ? (await records.tags.get(tagKey))?.digest : reference.digest;
      if (reference.kind === 'tag') await records.tags.delete(tagKey);
      const isKnown = root !== undefined && (await records.manifests.get(contentKey(source, root))) !== undefined;
      if (root === undefined || !isKnown)
        throw new NarrowsError('manifestUnknown', `Nothing is known here of ${name}.`);
      const digests = catalog.alone(root);
      for (const digest of digests) {
        for (const space of [records.manifests, records.blobs]) await space.delete(contentKey(source, digest));
        // Where images are pushed, one of them may be taking these very bytes for its own: they are left to the bounds.
        if (hosted) continue;
        await store.distrust(digest);
        await memory.delete(digest);
        await disk.delete(digest);
      }
      now().repeats.clear();
      log.info({ image: name, blobs: digests.length }, 'purged');
      return { image: name, digest: root, blobs: digests.length };
    },

    async offline(isOffline) {
      if (!change) {
        const message = 'With several workers, say offline in the configuration and have it read again (SIGHUP).';
        throw new NarrowsError('queryInvalid', message);
      }
      if (isOffline && now().config.access.mode === 'upstream') {
        throw new NarrowsError('queryInvalid', 'Offline, no upstream can be asked what callers may read.');
      }
      await change((config) => ({ ...config, offline: isOffline })).catch((error: unknown) => {
        if (error instanceof ConfigError) throw new NarrowsError('queryInvalid', error.message, { cause: error });
        throw error;
      });
      log.info({ offline: isOffline }, isOffline ? 'offline from now on' : 'online again');
      return { offline: isOffline };
    },

    log(level) {
      if (!levels.includes(level)) throw new NarrowsError('queryInvalid', `level is one of ${levels.join(', ')}.`);
      setLevel(level);
      log.warn({ level }, 'the level of the log was changed');
      return Promise.resolve({ level });
    },
  };
}

/** The same over what a server is made of. @param change undefined where that is not for one process to say */
export function openAdminActions(
  { log, now, closers }: Pick<Context, 'log' | 'now' | 'closers'>,
  generations: Generations,
  change?: Generations['change'],
  setLevel: (level: string) => void = (level) => void (log.level = level),
): AdminActions {
  const stopping = new AbortController();
  closers.push(() => stopping.abort());
  return createAdminActions({
    now() {
      const { work, serving } = generations.now();
      return { config: generations.config(), work, access: serving.access, repeats: serving.repeats };
    },
    log,
    clock: now,
    change,
    setLevel,
    signal: stopping.signal,
  });
}
