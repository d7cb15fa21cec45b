import { hasProgram, startDockerRegistry, startNarrows, startNginx, startPeer } from './processes.ts';
import type { Server, StoreOptions } from './processes.ts';

/** Starts a mirror of an upstream; where it can, in a store that outlives it. */
export type Starter = (upstreamUrl: string, options?: StoreOptions) => Promise<Server>;

/** No mirror at all. */
export const direct: Starter = (url) => Promise.resolve({ name: 'direct', url, pid: 0, stop: () => Promise.resolve() });

/** The same for clients that hash what they get on the same machine, as those of registries do; others do elsewhere. */
export function hashedByClients(start: Starter): Starter {
  return async (url, options) => {
    const server = await start(url, options);
    return { ...server, name: `${server.name}, hashed`, isHashedByClients: true };
  };
}

/**
 * narrows first, and what is installed of what people would take instead.
 *
 * @param peers as `name=command`
 * @param only of these the one that is called so; `without` those
 */
export function starters(
  peers: readonly string[],
  only: string | undefined,
  without: readonly string[] = [],
): Starter[] {
  const all: [name: string, program: string, Starter][] = [
    ['narrows', 'sh', (url, options) => startNarrows(url, options)],
    ['nginx', 'nginx', (url) => startNginx(url)],
    ['nginx, sendfile', 'nginx', (url) => startNginx(url, {}, 'nginx, sendfile')],
    ['nginx, open files', 'nginx', (url) => startNginx(url, {}, 'nginx, open files')],
    ['docker-registry', 'docker-registry', (url) => startDockerRegistry(url)],
    ...peers.map((peer): [string, string, Starter] => {
      const [name = peer] = peer.split('=', 1);
      return [name, 'sh', (url) => startPeer(name, peer.slice(name.length + 1), url)];
    }),
  ];
  return all.flatMap(([name, program, start]) =>
    hasProgram(program) && (only === undefined || only === name) && !without.includes(name) ? [start] : [],
  );
}
