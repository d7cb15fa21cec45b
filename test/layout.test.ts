import { readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/**
 * Holds the source tree to its shape: who may import whom, one home for each library, files that fit in the head, a
 * test for every source file. What this test says is what the map in the README promises.
 */
const root = fileURLToPath(new URL('..', import.meta.url));
const sources = filesBelow('src').filter((path) => path.endsWith('.ts'));

interface Import {
  readonly from: string;
  /** A path below the root, or the name of a module. */
  readonly to: string;
  readonly isType: boolean;
}

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

function importsOf(path: string): Import[] {
  return [...read(path).matchAll(/^(?:import|export)\s+(type\s)?[^;]*?from '([^']+)';/gms)].map(
    ([, type, target = '']) => ({
      from: path,
      to: target.startsWith('.') ? join(dirname(path), target) : target,
      isType: type !== undefined,
    }),
  );
}

const imports = sources.flatMap(importsOf);

/** `src/pull/flight.ts` is in `pull`, `src/errors.ts` in `errors`. */
function partOf(path: string): string {
  return path.split('/')[1]!.replace(/\.ts$/, '');
}

void t.test('the tree: what ls shows is what the map says', (t) => {
  t.same([...new Set(sources.map(partOf))].toSorted(), [
    'access',
    'admin',
    'airgap',
    'cache',
    'cli',
    'config',
    'config-cache',
    'config-cross-check',
    'config-schema',
    'config-values',
    'errors',
    'fleet',
    'hops',
    'http',
    'log',
    'main',
    'metrics',
    'mirror',
    'oci',
    'pull',
    'push',
    'trace',
    'upstream',
    'wiring',
  ]);
  t.end();
});

void t.test('imports point one way', (t) => {
  // Of ours, beside its own folder: what a part may import, and what it may import the types of.
  const allowed: Record<string, { values: string[]; types?: string[] }> = {
    errors: { values: [] },
    log: { values: [] },
    oci: { values: ['errors'] },
    'config-values': { values: ['oci'] },
    'config-cross-check': { values: ['access', 'config-values', 'oci'] },
    'config-cache': { values: ['config-values'] },
    config: { values: ['config-cache', 'config-cross-check', 'config-values', 'oci', 'errors'] },
    'config-schema': { values: ['config'] },
    cache: { values: ['oci', 'errors'] },
    fleet: { values: ['oci', 'cache', 'errors'] },
    hops: { values: ['errors'] },
    trace: { values: [] },
    upstream: { values: ['oci', 'errors', 'hops', 'trace'] },
    access: { values: ['errors'] },
    pull: { values: ['access', 'oci', 'errors'], types: ['cache', 'fleet', 'upstream'] },
    push: { values: ['access', 'oci', 'errors'], types: ['cache', 'pull', 'upstream'] },
    airgap: { values: ['oci', 'errors', 'pull'], types: ['cache', 'upstream'] },
    http: { values: ['oci', 'errors', 'hops', 'trace'], types: ['access', 'pull', 'push', 'cache'] },
    admin: { values: ['errors', 'oci'] },
    metrics: { values: [], types: ['http', 'pull'] },
    wiring: {
      values: [
        'access',
        'airgap',
        'cache',
        'config',
        'config-values',
        'errors',
        'fleet',
        'http',
        'metrics',
        'pull',
        'push',
        'upstream',
        'oci',
      ],
      types: ['admin', 'log'],
    },
    mirror: {
      values: [
        'access',
        'admin',
        'config',
        'config-values',
        'errors',
        'hops',
        'http',
        'log',
        'metrics',
        'oci',
        'pull',
        'upstream',
        'wiring',
      ],
    },
    cli: {
      values: [
        'access',
        'admin',
        'airgap',
        'cache',
        'config',
        'config-schema',
        'config-values',
        'errors',
        'fleet',
        'log',
        'metrics',
        'mirror',
        'oci',
        'pull',
        'push',
        'trace',
        'wiring',
      ],
    },
    main: { values: ['cli'] },
  };
  // Pure helpers over the Blob port; everything else of the cache is wired in.
  const exceptions = new Set([
    'src/cache/bytes.ts',
    'src/cache/records.ts',
    'src/cache/uploads.ts',
    'src/fleet/fleet.ts',
  ]);
  for (const { from, to, isType } of imports.filter((one) => one.to.startsWith('src/'))) {
    const [part, target] = [partOf(from), partOf(to)];
    if (part === target) continue;
    const { values, types = [] } = allowed[part]!;
    const isFine =
      values.includes(target) ||
      (isType && types.includes(target)) ||
      ((part === 'airgap' || part === 'pull' || part === 'push') && exceptions.has(to));
    t.ok(isFine, `${from} imports ${to}`);
  }
  t.end();
});

void t.test('there is no import cycle, not even of types', (t) => {
  const targets = new Map(
    sources.map((path) => [
      path,
      importsOf(path)
        .map(({ to }) => to)
        .filter((to) => sources.includes(to)),
    ]),
  );
  const done = new Set<string>();
  const visit = (path: string, above: string[]): void => {
    if (above.includes(path)) t.fail([...above.slice(above.indexOf(path)), path].join(' -> '));
    else if (!done.has(path)) for (const next of targets.get(path)!) visit(next, [...above, path]);
    done.add(path);
  };
  for (const path of sources) visit(path, []);
  t.pass(`${sources.length} files`);
  t.end();
});

void t.test('one library, one home', (t) => {
  const homes: Record<string, RegExp> = {
    undici: /^src\/upstream\//,
    keyv: /^src\/cache\/(records|record-space|redis|sqlite)\.ts$/,
    '@keyv/redis': /^src\/cache\/redis\.ts$/,
    '@redis/client': /^src\/cache\/redis(-connection)?\.ts$/,
    'lru-cache':
      /^src\/(access\/(htpasswd|guesses|addresses|verdicts)|http\/repeats|cache\/(memory|disk|shared-records|sqlite)|pull\/(tags|demand|savings|reading)|upstream\/tokens)\.ts$/,
    'node:sqlite': /^src\/cache\//,
    pino: /^src\/log\.ts$/,
    'prom-client': /^src\/metrics\/metrics\.ts$/,
    commander: /^src\/cli\//,
    zod: /^src\/config(-schema|-values|-cache)?\.ts$/,
    yaml: /^src\/(airgap\/yaml-tree\.ts|cli\/|config-schema\.ts)/,
    'node:http': /^src\/(http|admin)\//,
    'node:fs': /^src\/(cache\/|cli\/|wiring\/airgap-parts\.ts)/,
    'node:fs/promises':
      /^src\/(admin\/page\.ts|cache\/|cli\/|wiring\/|mirror\.ts|upstream\/credentials\.ts|http\/certificates\.ts)/,
    '@opentelemetry/api': /^src\/trace\.ts$/,
    '@aws-sdk/client-s3': /^src\/cache\/s3-store\.ts$/,
    jose: /^src\/access\//,
    bcryptjs: /^src\/access\/bcrypt-thread\.ts$/,
    'node:worker_threads': /^src\/(access|cache)\//,
    'node:cluster': /^src\/cli\/(workers|worker-link)\.ts$/,
    'node:child_process': /^src\/upstream\/credentials\.ts$/,
  };
  for (const { from, to, isType } of imports) {
    if (to.startsWith('src/') || isType) continue;
    const home = homes[to];
    if (home) t.match(from, home, `${from} imports ${to}`);
    else t.match(to, /^node:/, `${from} imports ${to}: give the library a home here`);
  }
  t.end();
});

void t.test('a start reads no client of what is not configured', (t) => {
  const reached = new Set(['src/main.ts']);
  for (const path of reached) {
    for (const { from, to, isType } of imports) if (from === path && !isType) reached.add(to);
  }
  t.ok(reached.has('src/wiring/storage.ts'));
  for (const client of ['@redis/client', '@keyv/redis', '@aws-sdk/client-s3', '@opentelemetry/api'])
    t.notOk(reached.has(client), client);
  t.end();
});

void t.test('only main touches the process', (t) => {
  for (const path of sources)
    if (path !== 'src/main.ts') t.notOk(/(?<!\.)\bprocess\.(?=[a-zA-Z])/.test(read(path)), path);
  t.end();
});

void t.test('files fit in the head, and have no barrels, default exports or leftovers', (t) => {
  for (const path of sources) {
    const text = read(path);
    t.ok(text.split('\n').length <= 300, `${path} has ${text.split('\n').length} lines`);
    t.notOk(/^export default|^export \*/m.test(text), path);
    t.notOk(/\b(?:TODO|FIXME|XXX|HACK)\b|@ts-(?:ignore|expect-error)|eslint-disable|oxlint-disable/.test(text), path);
    t.notOk(/(?:utils?|common|helpers?|lib|index)(?:\.ts|\/)/.test(path), path);
  }
  t.end();
});

void t.test('comments are between a twentieth and a fifth of the lines', (t) => {
  const lines = sources.flatMap((path) => read(path).split('\n'));
  const comments = lines.filter((line) => /^\s*(?:\/\/|\/\*|\*)/.test(line)).length;
  t.ok(comments / lines.length > 0.05 && comments / lines.length < 0.2, `${comments} of ${lines.length}`);
  t.end();
});

void t.test('every source file has its test', (t) => {
  const tests = new Set(filesBelow('test'));
  // Types alone, or told through a command that runs them.
  const through: Record<string, string> = {
    'src/http/answer.ts': 'test/http/server.test.ts',
    'src/main.ts': 'test/integration/serve.test.ts',
    'src/mirror.ts': 'test/pull/pull.test.ts',
    'src/cache/tier.ts': 'test/contracts/tier.ts',
    'src/cache/whole-file.ts': 'test/cache/file-readers.test.ts',
    'src/http/certificates.ts': 'test/http/tls.test.ts',
    'src/upstream/upstream.ts': 'test/upstream/registry.test.ts',
    'src/pull/request.ts': 'test/http/route.test.ts',
    'src/pull/flight-options.ts': 'test/pull/flight.test.ts',
    'src/upstream/trouble.ts': 'test/upstream/requests.test.ts',
    'src/upstream/trust.ts': 'test/upstream/requests.test.ts',
    'src/upstream/answers.ts': 'test/upstream/registry.test.ts',
    'src/cli/io.ts': 'test/integration/serve.test.ts',
    'src/cli/program.ts': 'test/integration/serve.test.ts',
    'src/cli/serve.ts': 'test/integration/serve.test.ts',
    'src/cli/start-failure.ts': 'test/integration/serve.test.ts',
    'src/cli/workbench.ts': 'test/cli/inspect.test.ts',
    'src/cli/worker-link.ts': 'test/integration/workers.test.ts',
    'src/cli/workers.ts': 'test/integration/workers.test.ts',
    'src/airgap/about.ts': 'test/airgap/warm.test.ts',
    'src/airgap/fetcher.ts': 'test/airgap/warm.test.ts',
    'src/airgap/gathering.ts': 'test/airgap/check.test.ts',
    'src/airgap/image-tree.ts': 'test/airgap/check.test.ts',
    'src/airgap/parts.ts': 'test/airgap/warm.test.ts',
    'src/airgap/publish.ts': 'test/airgap/import.test.ts',
    'src/airgap/receive.ts': 'test/airgap/corrupted.test.ts',
    'src/airgap/vouch.ts': 'test/airgap/contradictions.test.ts',
    'src/airgap/yaml-places.ts': 'test/airgap/find-images.test.ts',
    'src/airgap/yaml-tree.ts': 'test/airgap/find-images.test.ts',
    'src/cache/partial-file.ts': 'test/cache/disk.test.ts',
    'src/cli/check.ts': 'test/airgap/check.test.ts',
    'src/cli/files-below.ts': 'test/cli/image-list.test.ts',
    'src/cli/choice.ts': 'test/airgap/check.test.ts',
    'src/cli/export.ts': 'test/airgap/export.test.ts',
    'src/cli/import.ts': 'test/airgap/import.test.ts',
    'src/cli/sets.ts': 'test/airgap/warm.test.ts',
    'src/cli/warm.ts': 'test/airgap/warm.test.ts',
    'src/pull/reader.ts': 'test/airgap/warm.test.ts',
    'src/wiring/airgap-parts.ts': 'test/airgap/warm.test.ts',
    'src/access/bcrypt-thread.ts': 'test/access/bcrypt.test.ts',
    'src/cache/ledger.ts': 'test/contracts/ledger.ts',
    'src/cli/history.ts': 'test/integration/clients-push.test.ts',
    'src/fleet/fleet.ts': 'test/fleet/redis-fleet.test.ts',
    'src/pull/homes.ts': 'test/pull/overlays.test.ts',
    'src/push/books.ts': 'test/push/history.test.ts',
    'src/push/parts.ts': 'test/push/push.test.ts',
    'src/push/request.ts': 'test/http/push-route.test.ts',
    'src/push/shelf.ts': 'test/push/compose.test.ts',
    'src/wiring/access-parts.ts': 'test/integration/token-access.test.ts',
    'src/wiring/key-files.ts': 'test/integration/token-access.test.ts',
    'src/wiring/issuers.ts': 'test/integration/token-access.test.ts',
    'src/wiring/users-file.ts': 'test/integration/clients-push.test.ts',
    'src/http/answered.ts': 'test/http/server.test.ts',
    'src/http/asker.ts': 'test/integration/token-access.test.ts',
    'src/http/token-route.ts': 'test/integration/token-access.test.ts',
    'src/wiring/hosted-parts.ts': 'test/integration/push-faults.test.ts',
    'src/wiring/push-parts.ts': 'test/push/push.test.ts',
    'src/wiring/repository-rules.ts': 'test/pull/overlays.test.ts',
    'src/wiring/admin-actions.ts': 'test/admin/actions.test.ts',
    'src/wiring/admin-api.ts': 'test/admin/server.test.ts',
    'src/wiring/caller-rights.ts': 'test/pull/caller-rights.test.ts',
    'src/wiring/context.ts': 'test/pull/pull.test.ts',
    'src/cache/platform-use-thread.ts': 'test/cache/platform-use.test.ts',
    'src/wiring/gauges.ts': 'test/admin/live.test.ts',
    'src/wiring/generation.ts': 'test/integration/reload.test.ts',
    'src/wiring/generations.ts': 'test/integration/reload.test.ts',
    'src/http/serving.ts': 'test/http/server.test.ts',
    'src/wiring/live.ts': 'test/admin/live.test.ts',
    'src/wiring/disk-parts.ts': 'test/integration/bounds.test.ts',
    'src/wiring/observe.ts': 'test/pull/views.test.ts',
    'src/wiring/pull-parts.ts': 'test/pull/pull.test.ts',
    'src/wiring/pull-rules.ts': 'test/pull/pull.test.ts',
    'src/cache/redis-connection.ts': 'test/cache/redis.test.ts',
    'src/wiring/redis-parts.ts': 'test/integration/fleet.test.ts',
    'src/wiring/s3-parts.ts': 'test/integration/s3.test.ts',
    'src/wiring/storage.ts': 'test/integration/bounds.test.ts',
    'src/wiring/upstreams.ts': 'test/pull/pull.test.ts',
    'src/config-values.ts': 'test/config.test.ts',
    'src/config-cache.ts': 'test/config.test.ts',
  };
  for (const path of sources) {
    const test = through[path] ?? path.replace(/^src/, 'test').replace(/\.ts$/, '.test.ts');
    t.ok(tests.has(test), `${path} is tested by ${test}`);
  }
  t.end();
});

void t.test('the README names what exists', (t) => {
  const readme = read('README.md');
  for (const [, path = ''] of readme.matchAll(/`((?:src|test|config)\/[\w./-]+)`/g)) {
    const found = statSync(join(root, path), { throwIfNoEntry: false });
    t.ok(path.endsWith('/') ? found?.isDirectory() : found?.isFile(), path);
  }
  t.end();
});
