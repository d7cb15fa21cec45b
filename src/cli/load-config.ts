import { access, constants, readFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { anyUrl } from '../config-values.ts';
import { ConfigError, parseConfig } from '../config.ts';
import type { Config, Mistake } from '../config.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { proxyFor, proxyVariable } from './proxies.ts';

export const defaultConfigUrl = new URL('../../config/default.yaml', import.meta.url);

type Tree = { [key: string]: unknown };

/** What the command line sets, over everything else. */
export interface Overrides {
  readonly listen?: readonly string[];
  readonly admin?: string;
  /** `NAME=URL`. */
  readonly upstreams?: readonly string[];
  readonly defaultUpstream?: string;
  readonly store?: string;
  /** The Redis that replicas share. */
  readonly redis?: string;
  readonly workers?: string;
  readonly offline?: true;
}

export interface Loaded {
  /** As written, all sources together: for people and for `narrows config`. */
  readonly source: Tree;
  readonly config: Config;
}

/**
 * Defaults, then the file, then the environment, then the command line.
 *
 * @throws CommandError 2 with every mistake, one a line
 */
export async function loadConfig(file: string | undefined, overrides: Overrides, io: Io): Promise<Loaded> {
  const defaults = await readYaml(defaultConfigUrl);
  const path = file ?? io.env['NARROWS_CONFIG'];
  const written = path === undefined ? {} : await readYaml(path);
  const environment = await fromEnvironment(io.env, merge(defaults, written));
  const flags = fromOverrides(overrides, written);
  const mistakes = [...environment.mistakes, ...flags.mistakes];
  let source = merge(merge(merge(defaults, written), environment.tree), flags.tree);
  source = { ...source, upstreams: withProxies(withoutNulls(source['upstreams']), io.env, mistakes) };
  try {
    const config = parseConfig(source);
    mistakes.push(...(await unreadable(config)));
    if (mistakes.length === 0) return { source, config };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    mistakes.push(...error.mistakes);
  }
  const lines = mistakes.map((mistake) => `  ${mistake.path}: ${mistake.message}`);
  const count = lines.length === 1 ? 'a mistake' : `${lines.length} mistakes`;
  throw new CommandError(2, `The configuration has ${count}:\n${lines.join('\n')}`);
}

/** Files that are named and cannot be read: better told now than at the first pull that needs them. */
async function unreadable(config: Config): Promise<Mistake[]> {
  const files: [path: string, file: string | null | undefined][] = [
    ['dockerConfig', config.dockerConfig],
    ['cache.redis.ca', config.cache.redis.ca],
    ...config.cache.redis.sealKeys.map((file, index): [string, string] => [`cache.redis.sealKeys.${index}`, file]),
    ['cache.redis.passwordFile', config.cache.redis.passwordFile],
    ['cache.s3.secretAccessKeyFile', config.cache.s3.secretAccessKeyFile],
    ['access.htpasswd', config.access.htpasswd],
    ...config.access.token.keys.map((file, index): [string, string] => [`access.token.keys.${index}`, file]),
    ...config.access.issuers.flatMap(({ ca, tokenFile, jwks = '' }, index): [string, string | undefined][] => [
      [`access.issuers.${index}.ca`, ca],
      [`access.issuers.${index}.tokenFile`, tokenFile],
      [`access.issuers.${index}.jwks`, URL.canParse(jwks) ? undefined : jwks || undefined],
    ]),
    ...config.listen.flatMap(({ tls }, index): [string, string | undefined][] => [
      [`listen.${index}.tls.cert`, tls?.cert],
      [`listen.${index}.tls.key`, tls?.key],
      [`listen.${index}.tls.clientCa`, tls?.clientCa],
    ]),
    ...Object.entries(config.upstreams).flatMap(
      ([name, { ca, clientCertificate, credentials }]): [string, string | undefined][] => [
        [`upstreams.${name}.ca`, ca],
        [`upstreams.${name}.clientCertificate.cert`, clientCertificate?.cert],
        [`upstreams.${name}.clientCertificate.key`, clientCertificate?.key],
        [`upstreams.${name}.credentials.passwordFile`, credentials?.passwordFile],
      ],
    ),
  ];
  const mistakes = files.map(async ([path, file]): Promise<Mistake[]> => {
    if (file === null || file === undefined) return [];
    const failure = await access(file, constants.R_OK).catch((error: NodeJS.ErrnoException) => error);
    return failure ? [{ path, message: `${file} cannot be read (${failure.code})` }] : [];
  });
  return (await Promise.all(mistakes)).flat();
}

async function readYaml(path: string | URL): Promise<Tree> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new CommandError(
      2,
      `The configuration ${String(path)} cannot be read (${(cause as NodeJS.ErrnoException).code}).`,
      { cause },
    );
  }
  const document = parseDocument(text, { prettyErrors: true });
  const problems = document.errors.map((error) => `  ${error.message.split('\n', 1)[0]?.replace(/:$/, '')}`);
  if (problems.length > 0) throw new CommandError(2, `${String(path)} is not YAML:\n${problems.join('\n')}`);
  const value: unknown = document.toJS({ maxAliasCount: 100 }) ?? {};
  if (isTree(value)) return value;
  throw new CommandError(2, `${String(path)} is not a map of keys and values.`);
}

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Maps key by key, everything else whole. `__proto__` is a key like any other here, and refused later. */
function merge(under: Tree, over: Tree): Tree {
  const merged = new Map(Object.entries(under));
  for (const [key, value] of Object.entries(over)) {
    const below = merged.get(key);
    merged.set(key, isTree(below) && isTree(value) ? merge(below, value) : value);
  }
  return Object.fromEntries(merged);
}

/** An upstream that says nothing of a proxy has that of the environment. */
function withProxies(upstreams: unknown, env: Io['env'], mistakes: Mistake[]): unknown {
  if (!isTree(upstreams)) return upstreams;
  const wrong = new Set<string>();
  const entries = Object.entries(upstreams).map(([name, entry]) => {
    if (!isTree(entry) || entry['proxy'] !== undefined || !URL.canParse(String(entry['url']))) return [name, entry];
    const url = new URL(String(entry['url']));
    const proxy = proxyFor(url, env);
    if (proxy === undefined) return [name, entry];
    if (anyUrl.safeParse(proxy).success) return [name, { ...entry, proxy }];
    wrong.add(proxyVariable(url));
    return [name, entry];
  });
  for (const path of wrong) mistakes.push({ path, message: 'expected a URL such as http://proxy.example:3128' });
  return Object.fromEntries(entries);
}

function withoutNulls(value: unknown): unknown {
  return isTree(value) ? Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== null)) : value;
}

interface Contribution {
  tree: Tree;
  mistakes: Mistake[];
}

/**
 * `NARROWS_CACHE_DISK_PATH` sets cache.disk.path, and so on for every single value of the defaults;
 * `NARROWS_UPSTREAM_DOCKER_IO_USERNAME` and `…_PASSWORD` the credentials of an upstream; with `_FILE` behind any of
 * them the value is what that file holds.
 */
async function fromEnvironment(env: Io['env'], known: Tree): Promise<Contribution> {
  const paths = new Map(leavesOf(known).map((path) => [variableOf(path), path]));
  for (const name of isTree(known['upstreams']) ? Object.keys(known['upstreams']) : []) {
    for (const field of ['username', 'password']) {
      paths.set(variableOf(['upstream', name, field]), ['upstreams', name, 'credentials', field]);
    }
  }
  let tree: Tree = {};
  const mistakes: Mistake[] = [];
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith('NARROWS_') || name === 'NARROWS_CONFIG' || text === undefined) continue;
    // Kubernetes puts these into every pod beside a Service called narrows.
    if (/^NARROWS_(?:SERVICE|PORT)(?:_|$)/.test(name)) continue;
    const path = paths.get(name) ?? paths.get(name.replace(/_FILE$/, '')) ?? upstreamPath(name);
    const value = name.endsWith('_FILE') && !paths.has(name) ? await readSecret(text) : text;
    if (!path) mistakes.push({ path: name, message: 'no key of the configuration has this name' });
    else if (value === undefined) mistakes.push({ path: name, message: `the file ${text} cannot be read` });
    else tree = merge(tree, nest(path, isSecret(path) ? value : parseDocument(value).toJS()));
  }
  return { tree, mistakes };
}

/** A password of digits is no number. */
function isSecret(path: readonly string[]): boolean {
  return /^(?:username|password|accessKeyId|secretAccessKey)$/.test(path.at(-1) ?? '');
}

/** Of upstreams that only the command line names, those with a name of one word can be found out. */
function upstreamPath(variable: string): string[] | undefined {
  const match = /^NARROWS_UPSTREAM_([A-Z0-9]+)_(USERNAME|PASSWORD)(?:_FILE)?$/.exec(variable);
  return match ? ['upstreams', match[1]!.toLowerCase(), 'credentials', match[2]!.toLowerCase()] : undefined;
}

function variableOf(path: readonly string[]): string {
  const words = path.map((key) => key.replaceAll(/([a-z])([A-Z])/g, '$1_$2').replaceAll(/[^A-Za-z0-9]/g, '_'));
  return `NARROWS_${words.join('_').toUpperCase()}`;
}

function leavesOf(tree: Tree, above: readonly string[] = []): string[][] {
  return Object.entries(tree).flatMap(([key, value]) => {
    if (Array.isArray(value) || (above.length === 0 && key === 'upstreams')) return [];
    return isTree(value) ? leavesOf(value, [...above, key]) : [[...above, key]];
  });
}

function nest(path: readonly string[], value: unknown): Tree {
  return path.toReversed().reduce<unknown>((inner, key) => ({ [key]: inner }), value) as Tree;
}

async function readSecret(path: string): Promise<string | undefined> {
  return (await readFile(path, 'utf8').catch(() => undefined))?.trimEnd();
}

function fromOverrides(overrides: Overrides, written: Tree): Contribution {
  const { listen, admin, upstreams = [], defaultUpstream, store, redis, workers, offline } = overrides;
  const mistakes: Mistake[] = [];
  const named = upstreams.map((text) => {
    const [, name, url] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (name === undefined) mistakes.push({ path: `--upstream ${text}`, message: 'expected NAME=URL' });
    return [name ?? '', { url }] as const;
  });
  const replaced = [written['listen'] ?? []].flat().filter((entry) => isTree(entry) && Object.keys(entry).length > 1);
  if (listen && replaced.length > 0) {
    mistakes.push({
      path: '--listen',
      message: 'would replace listeners of the file that say more than an address; name them in one place only',
    });
  }
  const tree: Tree = {
    ...(workers !== undefined && { workers: Number(workers) }),
    ...(offline && { offline }),
    ...(listen && { listen: listen.map((address) => ({ address })) }),
    ...(admin !== undefined && { admin: { address: admin } }),
    ...(named.length > 0 && mistakes.length === 0 && { upstreams: Object.fromEntries(named) }),
    ...(defaultUpstream !== undefined && { defaultUpstream }),
    cache: {
      ...(store !== undefined && { disk: { path: store } }),
      ...(redis !== undefined && { redis: { url: redis } }),
    },
  };
  return { tree, mistakes };
}
