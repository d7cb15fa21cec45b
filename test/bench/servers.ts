import { hasProgram, startDockerRegistry, startNarrows, startNginx, startPeer } from './processes.ts';
import type { Server, StoreOptions } from './processes.ts';

/** Starts a mirror of an upstream; where it can, in a store that outlives it. */
export type Starter = (upstreamUrl: string, options?: StoreOptions) => Promise<Server>;

/** No mirror at all. */
export const direct: Starter = (url) => Promise.resolve({ name: 'direct', url, pid: 0, stop: () => Promise.resolve() });

/** What nginx would take if it looked at what it passes on: its client does, and one has to on the same machine. */
export const hashedNginx: Starter = async (url) => ({
  ...(await startNginx(url)),
  name: 'nginx, hashed',
  isHashedByClients: true,
});

/**
 * narrows first, and what is installed of what people would take instead.
 *
 * @param peers as `name=command`
 * @param only of these the one that is called so; `without` that one
 */
export function starters(peers: readonly string[], only: string | undefined, without?: string): Starter[] {
  const all: [name: string, program: string, Starter][] = [
    ['narrows', 'sh', (url, options) => startNarrows(url, options)],
    ['nginx', 'nginx', (url) => startNginx(url)],
    ['nginx, sendfile', 'nginx', (url) => startNginx(url, 'sendfile')],
    ['docker-registry', 'docker-registry', (url) => startDockerRegistry(url)],
    ...peers.map((peer): [string, string, Starter] => {
      const [name = peer] = peer.split('=', 1);
      return [name, 'sh', (url) => startPeer(name, peer.slice(name.length + 1), url)];
    }),
  ];
  return all.flatMap(([name, program, start]) =>
    hasProgram(program) && (only === undefined || only === name) && name !== without ? [start] : [],
  );
}
