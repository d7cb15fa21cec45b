/** A file for a client, ready to be put in its place. */
export interface Snippet {
  readonly path: string;
  readonly note?: string;
  readonly text: string;
}

export interface SnippetOptions {
  readonly mirror: URL;
  /** The platform set in the spelling of paths; without one the mirror's own rules decide. */
  readonly set: string | undefined;
  readonly registries: readonly string[];
}

/** `/p/linux-arm64`, or nothing. */
function prefix(set: string | undefined): string {
  return set === undefined ? '' : `/p/${set}`;
}

/**
 * How each client is told. They differ in where a path may stand: before `/v2` (containerd, Docker) or inside it
 * (containers/image, BuildKit), and in whether they want to see `/v2` at all.
 */
export const snippets: Readonly<Record<string, (options: SnippetOptions) => Snippet[]>> = {
  containerd: ({ mirror, set }) => [
    {
      path: '/etc/containerd/certs.d/_default/hosts.toml',
      note: 'For every registry; no restart needed. Without `server`, containerd falls back to the registry itself.\nWith `server = ` this address it does not. ctr wants --hosts-dir /etc/containerd/certs.d\nIn config.toml, under plugins."io.containerd.cri.v1.images".registry (containerd 1: plugins."io.containerd.grpc.v1.cri".registry),\nconfig_path must be this one folder: config_path = "/etc/containerd/certs.d"',
      text: `[host."${mirror.origin}${prefix(set)}/v2"]\n  capabilities = ["pull", "resolve"]\n`,
    },
  ],

  docker: ({ mirror, set }) => [
    {
      path: '/etc/docker/daemon.json',
      note: 'Docker mirrors docker.io alone. The address must not end in /v2. Restart the daemon after.\nMerge it into the file that is there.',
      text: `${JSON.stringify(
        {
          'registry-mirrors': [`${mirror.origin}${prefix(set)}/`],
          ...(mirror.protocol === 'http:' && { 'insecure-registries': [mirror.host] }),
        },
        undefined,
        2,
      )}\n`,
    },
  ],

  crio: containersImage,
  podman: containersImage,

  k3s: ({ mirror, set }) => [
    {
      path: '/etc/rancher/k3s/registries.yaml',
      note: 'RKE2: /etc/rancher/rke2/registries.yaml. The endpoint must end in /v2. Restart after.\n--disable-default-registry-endpoint keeps nodes from going to the registry itself.',
      text: `mirrors:\n  "*":\n    endpoint: ["${mirror.origin}${prefix(set)}/v2"]\n`,
    },
  ],

  talos: ({ mirror, set }) => [
    {
      path: 'machine configuration (Talos 1.12 or newer)',
      text: `apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: "*"\nendpoints:\n  - url: ${mirror.origin}${prefix(set)}/v2\nskipFallback: false\n`,
    },
  ],

  buildkit: ({ mirror, set, registries }) => [
    {
      path: '/etc/buildkit/buildkitd.toml',
      note: 'Builders resolve several platforms through one name: give them the set any.',
      text: [
        ...registries.map((name) => `[registry."${name}"]\n  mirrors = ["${mirror.host}${prefix(set)}/${name}"]\n`),
        ...(mirror.protocol === 'http:' ? [`[registry."${mirror.host}"]\n  http = true\n`] : []),
      ].join('\n'),
    },
  ],
};

function containersImage({ mirror, set, registries }: SnippetOptions): Snippet[] {
  const insecure = mirror.protocol === 'http:' ? 'insecure = true\n' : '';
  return [
    {
      path: '/etc/containers/registries.conf.d/50-narrows.conf',
      note: 'For podman, buildah, skopeo and CRI-O (systemctl reload crio). They go to the registry itself when the mirror says no.',
      text: registries
        .map(
          (name) =>
            `[[registry]]\nprefix = "${name}"\nlocation = "${name}"\n[[registry.mirror]]\nlocation = "${mirror.host}${prefix(set)}/${name}"\n${insecure}`,
        )
        .join('\n'),
    },
  ];
}
