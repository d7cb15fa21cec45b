import { NarrowsError } from '../errors.ts';
import { canonicalName } from '../oci/host.ts';
import { isRepositoryName, parseRepositoryName } from '../oci/reference.ts';
import type { RepositoryName } from '../oci/reference.ts';
import type { Upstream } from './upstream.ts';

/** A repository of an upstream; `key` names it in records, logs and the catalog: `docker.io/library/nginx`. */
export interface Source {
  readonly upstream: Upstream;
  readonly repository: RepositoryName;
  readonly key: string;
  /** It is pushed to here: what it has is asked for each time, for nobody else knows. */
  readonly isHosted?: true;
  /** The `ns` of the request where that is what named the upstream: the answer says it back in `OCI-Namespace`. */
  readonly namespace?: string;
}

export interface Registries {
  /**
   * The upstream of a repository name as a client asked for it.
   *
   * @param namespace the `ns` parameter
   * @param fallback the upstream of the listener, where it has one of its own
   * @throws NarrowsError nameUnknown for a registry that is not configured: it is never dialled
   */
  find(name: RepositoryName, namespace: string | undefined, fallback: string | undefined): Source;
}

const dockerHub = 'docker.io';
const dockerHubAliases = new Set(['index.docker.io', 'registry-1.docker.io']);

/** @param hosted the registry of a repository that is hosted here; undefined for others */
export function createRegistries(
  upstreams: ReadonlyMap<string, Upstream>,
  defaultName: string,
  hosted: (repository: string) => Upstream | undefined = () => undefined,
): Registries {
  function source(asked: string, repository: string, namespace?: string): Source | undefined {
    const name = canonicalName(asked);
    const canonical = dockerHubAliases.has(name) && !upstreams.has(name) ? dockerHub : name;
    const upstream = upstreams.get(canonical);
    if (!upstream) return undefined;
    // Docker Hub keeps the images that have one name under `library`.
    const whole = canonical === dockerHub && !repository.includes('/') ? `library/${repository}` : repository;
    return {
      upstream,
      repository: parseRepositoryName(whole),
      key: `${canonical}/${whole}`,
      ...(namespace !== undefined && { namespace: name }),
    };
  }

  return {
    find(name, namespace, fallback) {
      // A namespace is another registry's: what is hosted here has none.
      const own = namespace === undefined ? hosted(name) : undefined;
      if (own) return { upstream: own, repository: name, key: name, isHosted: true };
      const slash = name.indexOf('/');
      const first = slash < 0 ? '' : name.slice(0, slash);
      const named = first && source(first, name.slice(slash + 1));
      if (named) return named;
      if (namespace !== undefined) return source(namespace, name, namespace) ?? refuse(namespace);
      // No namespace of Docker Hub has a dot: this is a registry that someone expects to be mirrored here.
      if (first.includes('.') || first === 'localhost') return refuse(first);
      return source(fallback ?? defaultName, name) ?? refuse(fallback ?? defaultName);
    },
  };
}

function refuse(name: string): never {
  const shown = isRepositoryName(name) ? name : JSON.stringify(name.slice(0, 80));
  throw new NarrowsError(
    'nameUnknown',
    `${shown} is not a registry that this mirror serves; add it under upstreams in its configuration.`,
  );
}
