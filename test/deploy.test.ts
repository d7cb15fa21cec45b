import { readFileSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Test } from 'tap';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig } from '../src/cli/load-config.ts';
import type { Config } from '../src/config.ts';
import { parseAddress } from '../src/config-values.ts';
import { createSandbox, requireProgram } from './fixtures/clients.ts';
import { runNarrows, startServe } from './fixtures/process.ts';
import { quiet } from './fixtures/bundles.ts';
import { temporaryFolder } from './fixtures/mirror.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, 'config/deploy');
const read = (path: string) => readFileSync(join(root, path), 'utf8');
/** However it is started, it takes as much memory. */
const { scripts } = JSON.parse(read('package.json')) as { scripts: { start: string } };
const memoryOption = /^node (--max-semi-space-size=\d+) /.exec(scripts.start)![1]!;

interface Container {
  readonly name: string;
  readonly ports?: readonly { name: string; containerPort: number }[];
  readonly securityContext: Record<string, unknown>;
  readonly resources: { requests: object; limits: { memory: string } };
  readonly volumeMounts: readonly { name: string; mountPath: string }[];
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly env?: readonly { name: string; value: string }[];
}

interface Probe {
  readonly httpGet?: { path: string; port: string };
}

interface Pod {
  readonly serviceAccountName?: string;
  readonly automountServiceAccountToken: boolean;
  readonly terminationGracePeriodSeconds?: number;
  readonly securityContext: Record<string, unknown>;
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes: readonly { name: string; configMap?: { name: string } }[];
}

interface Resource {
  readonly kind: string;
  readonly apiVersion: string;
  readonly metadata: { name: string };
  readonly spec: {
    selector?: Record<string, unknown> & { matchLabels?: Record<string, string> };
    podSelector?: { matchLabels: Record<string, string> };
    template?: { metadata: { labels: Record<string, string> }; spec: Pod };
    ports?: readonly { targetPort: string }[];
    ingress?: readonly { ports: readonly { port: number }[]; from?: unknown }[];
  };
}

interface Kustomization {
  readonly resources: readonly string[];
  readonly configMapGenerator?: readonly { name: string; files: readonly string[] }[];
}

function kustomization(name: string): Kustomization {
  return parse(read(`config/deploy/kubernetes/${name}/kustomization.yaml`)) as Kustomization;
}

/** All that a kustomization brings, its bases' too. */
function resourcesOf(name: string): Resource[] {
  return kustomization(name).resources.flatMap((path) => {
    if (path.startsWith('../')) return resourcesOf(path.slice(3));
    const documents = parseAllDocuments(read(`config/deploy/kubernetes/${name}/${path}`));
    return documents.map((document) => {
      if (document.errors[0]) throw document.errors[0];
      return document.toJS() as Resource;
    });
  });
}

async function configOf(path: string): Promise<Config> {
  return (await loadConfig(join(root, path), {}, quiet)).config;
}

const portOf = (address: string | null) => parseAddress(address ?? '')!.port;

for (const name of ['edge', 'fleet']) {
  void t.test(`kubernetes, ${name}: what is said there fits together, and the program`, async (t) => {
    const resources = resourcesOf(name);
    const config = await configOf(`config/deploy/kubernetes/${name}/narrows.yaml`);
    const generated = kustomization(name).configMapGenerator!.map((one) => one.name);
    for (const resource of resources) {
      t.match(resource, { apiVersion: /^(?:v1|[a-z0-9.]+\/v1)$/, kind: String, metadata: { name: String } });
    }
    const workloads = resources.filter(({ spec }) => spec?.template);
    t.ok(workloads.length > 0);
    for (const { metadata, spec } of workloads) {
      const { labels } = spec.template!.metadata;
      t.same(spec.selector!.matchLabels, labels, `${metadata.name}: selector`);
      checkPod(t, spec.template!.spec, config, generated);
    }
    const labelled = workloads.map(({ spec }) => spec.template!.metadata.labels['app.kubernetes.io/name']);
    for (const { kind, metadata, spec } of resources) {
      const selected = kind === 'NetworkPolicy' ? spec.podSelector!.matchLabels : (spec?.selector ?? undefined);
      const labels = (selected as { matchLabels?: object } | undefined)?.matchLabels ?? selected;
      if (!labels) continue;
      const pod = (labels as Record<string, string>)['app.kubernetes.io/name']!;
      t.ok(labelled.includes(pod), `${kind} ${metadata.name} selects pods that there are`);
    }
    const policy = resources.find(({ kind, metadata }) => kind === 'NetworkPolicy' && metadata.name === 'narrows')!;
    const [open, restricted] = policy.spec.ingress!;
    t.equal(open!.ports[0]!.port, portOf(config.listen[0]!.address));
    t.equal(restricted!.ports[0]!.port, portOf(config.admin.address));
    t.ok(restricted!.from, 'the admin listener is not for everyone');
  });
}

function checkPod(t: Test, pod: Pod, config: Config, generated: readonly string[]): void {
  t.equal(pod.automountServiceAccountToken, false, 'it asks nothing of the cluster');
  t.match(pod.securityContext, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
  const volumes = pod.volumes.map(({ name }) => name);
  for (const container of [...(pod.initContainers ?? []), ...pod.containers]) {
    t.match(container.securityContext, { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true });
    t.match(container.securityContext, { capabilities: { drop: ['ALL'] } });
    t.ok(container.resources.requests && container.resources.limits.memory, `${container.name}: resources`);
    for (const { name } of container.volumeMounts) t.ok(volumes.includes(name), `${container.name}: volume ${name}`);
  }
  const narrows = pod.containers.find(({ name }) => name === 'narrows');
  if (!narrows) return;
  for (const { configMap } of pod.volumes) if (configMap) t.ok(generated.includes(configMap.name));
  const ports = Object.fromEntries(narrows.ports!.map(({ name, containerPort }) => [name, containerPort]));
  t.same(ports, { mirror: portOf(config.listen[0]!.address), admin: portOf(config.admin.address) });
  t.match(narrows.startupProbe, { httpGet: { path: '/readyz', port: 'admin' } });
  t.match(narrows.readinessProbe, { httpGet: { path: '/readyz', port: 'admin' } });
  t.match(narrows.livenessProbe, { httpGet: { path: '/healthz', port: 'admin' } });
  t.ok(pod.terminationGracePeriodSeconds! * 1000 > config.limits.stopGrace + 5000, 'a stop has its time');
  t.match(narrows.env, [{ name: 'NARROWS_CONFIG', value: '/etc/narrows/narrows.yaml' }]);
  const places = narrows.volumeMounts.map(({ mountPath }) => mountPath);
  t.same(places.toSorted(), ['/data', '/etc/narrows', '/tmp']);
  t.equal(config.cache.disk.path, '/data');
}

void t.test('compose: its configuration is one, and its services are shut in', async (t) => {
  const compose = parse(read('config/deploy/compose.yaml'), { merge: true }) as {
    services: Record<string, Record<string, unknown>>;
    configs: { narrows: { content: string } };
    volumes: object;
  };
  const file = join(await temporaryFolder(t), 'narrows.yaml');
  await writeFile(file, compose.configs.narrows.content);
  const { config } = await loadConfig(file, {}, quiet);
  for (const [name, service] of Object.entries(compose.services)) {
    t.match(service, { read_only: true, cap_drop: ['ALL'], security_opt: ['no-new-privileges:true'] }, name);
    if (!('build' in service)) continue;
    const ports = (service['ports'] as string[]).map((text) => Number(text.split(':').at(-1)));
    t.same(ports, [portOf(config.listen[0]!.address), portOf(config.admin.address)]);
    t.ok(Number.parseInt(String(service['stop_grace_period']), 10) * 1000 > config.limits.stopGrace);
    const [volume = ''] = (service['volumes'] as string[])[0]!.split(':');
    t.ok(volume in compose.volumes);
  }
  t.equal(new URL(config.cache.redis.url!).hostname, 'valkey');
  t.ok('valkey' in compose.services);
});

void t.test('systemd: the unit is one, and is shut in', async (t) => {
  const unit = read('config/deploy/narrows.service');
  const config = await configOf('config/default.yaml');
  t.ok(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]) * 1000 > config.limits.stopGrace);
  t.match(unit, /^ExecReload=\/bin\/kill -HUP \$MAINPID$/m);
  const [, command = ''] = /^ExecStart=(.*)$/m.exec(unit)!;
  const [, option, script, ...args] = command.split(' ');
  t.equal(option, memoryOption);
  t.equal(script, '/opt/narrows/src/narrows.js');
  t.same(args, ['serve', '--config', '/etc/narrows/narrows.yaml', '--store', '/var/lib/narrows']);
  const analyze = await requireProgram(t, 'systemd-analyze');
  if (analyze === undefined) return;
  const sandbox = await createSandbox(t);
  // What it starts is not installed where tests run: something that is takes its place.
  const file = await sandbox.write('narrows.service', unit.replace(/^ExecStart=.*$/m, 'ExecStart=/bin/true'));
  const verified = await sandbox.run(analyze, 'verify', '--man=no', file);
  t.same([verified.code, verified.err], [0, '']);
  const { out } = await sandbox.run(analyze, 'security', '--offline=true', file);
  const exposure = Number(/Overall exposure level for narrows\.service: ([\d.]+)/.exec(out)?.[1]);
  t.ok(exposure > 0 && exposure < 2.5, `exposure ${exposure} of 10`);
});

void t.test('image: what it is made of is there, and what it runs, runs', async (t) => {
  const dockerfile = read('Dockerfile');
  const ignored = read('.dockerignore').split('\n').filter(Boolean);
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, from = '']) => from.split(' '));
  t.ok(copied.includes('src'));
  for (const path of copied) {
    t.ok(readdirSync(root).includes(path), path);
    t.notOk(ignored.includes(path), `${path} is not left out`);
  }
  const [, user = ''] = /^USER (\S+)$/m.exec(dockerfile)!;
  t.match(user, /^[1-9]\d*:[1-9]\d*$/, 'a number, and not that of root');
  t.match(dockerfile, /^USER [^]*^RUN node src\/narrows\.js/m, 'what is compiled is kept for each user apart');
  const [, configPath = ''] = /^ENV NARROWS_CONFIG=\/narrows\/(\S+)$/m.exec(dockerfile)!;
  const config = await configOf(configPath);
  const [, health = ''] = /^HEALTHCHECK .*CMD (\[.*\])$/m.exec(dockerfile)!;
  const [program, ...args] = JSON.parse(health) as string[];
  t.equal(program, 'node');
  const exposed = /^EXPOSE (.*)$/m.exec(dockerfile)![1]!.split(' ').map(Number);
  t.same(exposed, [portOf(config.listen[0]!.address), portOf(config.admin.address)]);
  t.equal(config.cache.disk.path, /^VOLUME (\S+)$/m.exec(dockerfile)![1]);
  const [, entry = ''] = /^ENTRYPOINT (\[.*\])$/m.exec(dockerfile)!;
  t.same(JSON.parse(entry), ['node', memoryOption, 'src/narrows.js']);
  t.equal(runNarrows(['--version'], { NARROWS_CONFIG: join(root, configPath) }).code, 0);
  const serve = await startServe(t, {
    args: ['--config', join(root, configPath), '--store', await temporaryFolder(t)],
  });
  // The check of the image, at the port that this one has.
  const sandbox = await createSandbox(t);
  const check = args.map((arg) => arg.replace('http://127.0.0.1:5001', serve.adminUrl));
  t.equal((await sandbox.run(process.execPath, ...check)).code, 0, 'healthy');
  serve.child.kill('SIGKILL');
  await serve.exit;
  t.equal((await sandbox.run(process.execPath, ...check)).code, 1, 'gone');
});

void t.test('the page about it names what there is', (t) => {
  const page = readFileSync(join(folder, 'README.md'), 'utf8');
  const there = new Set([
    ...readdirSync(folder, { recursive: true, encoding: 'utf8' }),
    ...readdirSync(join(root, 'config')).map((name) => `../${name}`),
  ]);
  const named = [...page.matchAll(/`([\w./-]+\.(?:service|yaml|json))`/g)].map(([, name = '']) => name);
  for (const name of named) t.ok(there.has(name) || /^(?:registries|mirrors)\.yaml$/.test(name), name);
  for (const client of ['containerd', 'k3s', 'talos']) {
    const told = runNarrows(['client', client, '--mirror', 'http://127.0.0.1:5000', '--platform', 'linux/arm64']);
    t.equal(told.code, 0, client);
    t.match(told.out, '127.0.0.1:5000');
  }
  t.end();
});
