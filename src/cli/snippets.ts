/** A file for a client, ready to be put in its place. */
export interface Snippet {
  readonly path: string;
  readonly note?: string;
  readonly text: string;
}

export interface SnippetOptions {
  readonly mirror: URL;
  /** The platform set in the spelling of paths. */
  readonly set: string;
  readonly registries: readonly string[];
}

/**
 * How each client is told. They differ in where a path may stand: before `/v2` (containerd, Docker) or inside it
 * (containers/image, BuildKit), and in whether they want to see `/v2` at all.
 */
export const snippets: Readonly<Record<string, (options: SnippetOptions) => Snippet[]>> = {
  containerd: ({ mirror, set }) => [
    {
      path: '/etc/containerd/certs.d/_default/hosts.toml',
      note: 'For every registry; no restart needed. Without `server`, containerd falls back to the registry itself.\nIn config.toml, config_path must be this one folder: config_path = "/etc/containerd/certs.d"',
      text: `[host."${mirror.origin}/p/${set}/v2"]\n  capabilities = ["pull", "resolve"]\n`,
    },
  ],

  docker: ({ mirror, set }) => [
    {
      path: '/etc/docker/daemon.json',
      note: 'Docker mirrors docker.io alone. The address must not end in /v2. Restart the daemon after.\n(Take these two lines of comment away: the file is JSON.)',
      text: `${JSON.stringify(
        {
          'registry-mirrors': [`${mirror.origin}/p/${set}/`],
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
      note: 'RKE2: /etc/rancher/rke2/registries.yaml. The endpoint must end in /v2.',
      text: `mirrors:\n  "*":\n    endpoint: ["${mirror.origin}/p/${set}/v2"]\n`,
    },
  ],

  talos: ({ mirror, set }) => [
    {
      path: 'machine configuration (Talos 1.12 or newer)',
      text: `apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: "*"\nendpoints:\n  - url: ${mirror.origin}/p/${set}/v2\nskipFallback: false\n`,
    },
  ],

  buildkit: ({ mirror, set, registries }) => [
    {
      path: '/etc/buildkit/buildkitd.toml',
      note: 'Builders resolve several platforms through one name: give them the set any.',
      text: [
        ...registries.map((name) => `[registry."${name}"]\n  mirrors = ["${mirror.host}/p/${set}/${name}"]\n`),
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
      note: 'For podman, buildah, skopeo and CRI-O.',
      text: registries
        .map(
          (name) =>
            `[[registry]]\nprefix = "${name}"\nlocation = "${name}"\n[[registry.mirror]]\nlocation = "${mirror.host}/p/${set}/${name}"\n${insecure}`,
        )
        .join('\n'),
    },
  ];
}
