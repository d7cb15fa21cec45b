import { isIP, isIPv6 } from 'node:net';
import { z } from 'zod';
import { address, anyUrl, count, duration, flag, platform, size, strict, text, url, wait } from './config-values.ts';
import { formatPlatform, parsePlatform } from './oci/platform.ts';
import type { Platform, PlatformSet } from './oci/platform.ts';

/** One thing that is wrong, and where. */
export interface Mistake {
  readonly path: string;
  readonly message: string;
}

/** All that is wrong with a configuration, at once. */
export class ConfigError extends Error {
  readonly mistakes: readonly Mistake[];

  constructor(mistakes: readonly Mistake[]) {
    super(mistakes.map(({ path, message }) => `${path}: ${message}`).join('\n'));
    this.name = 'ConfigError';
    this.mistakes = mistakes;
  }
}

const setReference = z.union([text, z.array(text).min(1)], {
  error: 'expected a platform, a list of them, a named set, or any',
});

const listener = strict('a map such as { address: 127.0.0.1:5000 }', {
  address,
  platforms: setReference.optional(),
  view: z.enum(['image', 'index'], { error: 'expected image or index' }).optional(),
  upstream: text.optional(),
  tls: z.strictObject({ cert: text, key: text }).optional(),
});

const upstream = strict('a map such as { url: https://registry.example }', {
  url,
  credentials: z
    .strictObject({ username: text, password: text.optional(), passwordFile: text.optional() })
    .refine((value) => (value.password === undefined) !== (value.passwordFile === undefined), {
      error: 'expected either password or passwordFile',
    })
    .optional(),
  ca: text.optional(),
  proxy: anyUrl.optional(),
  trustedHosts: z.array(text, { error: 'expected a list of hosts' }).optional(),
});

const tagRule = z
  .strictObject({ pattern: text, fresh: duration.optional(), immutable: z.literal(true).optional() })
  .refine((rule) => (rule.fresh === undefined) !== (rule.immutable === undefined), {
    error: 'expected either fresh or immutable: true',
  });

const redisUrl = z
  .string({ error: 'expected a URL such as redis://127.0.0.1:6379' })
  .refine((value) => URL.canParse(value) && /^rediss?:$/.test(new URL(value).protocol), {
    error: 'expected a URL such as redis://127.0.0.1:6379, or rediss:// for TLS',
  });
const nodes = z.array(address, { error: 'expected a list of addresses such as [10.0.0.1:6379]' });

const redis = z.strictObject({
  url: redisUrl.nullable(),
  cluster: nodes,
  sentinels: nodes,
  master: text,
  tls: flag,
  ca: text.nullable(),
  username: text.nullable(),
  password: text.nullable(),
  passwordFile: text.nullable(),
  prefix: z
    .string({ error: 'expected text' })
    .regex(/^[^{}]{0,64}$/, { error: 'expected up to 64 characters, none of them { or }' }),
  maxSize: size,
  maxBlobSize: size.refine((bytes) => bytes <= 2 ** 29, { error: 'expected at most 512MiB' }),
  ttl: duration.refine((ms) => ms >= 1000, { error: 'expected at least 1s' }),
  timeout: wait,
  connect: wait,
  lease: wait.refine((ms) => ms >= 500, { error: 'expected at least 500ms' }),
  queue: count,
  required: flag,
});

const s3 = z.strictObject({
  bucket: text.nullable(),
  prefix: z.string({ error: 'expected text' }),
  endpoint: anyUrl.nullable(),
  region: text,
  pathStyle: flag,
  accessKeyId: text.nullable(),
  secretAccessKey: text.nullable(),
  secretAccessKeyFile: text.nullable(),
  minBlobSize: size,
  maxSize: size,
  partSize: size.refine((bytes) => bytes >= 5 * 2 ** 20, { error: 'expected at least 5MiB, as S3 does' }),
  timeout: wait,
  connections: count,
  required: flag,
});

export const configSchema = z.strictObject({
  workers: count,
  listen: z
    .array(listener, { error: 'expected a list of listeners' })
    .min(1, { error: 'expected at least one listener' }),
  admin: z.strictObject({ address: address.nullable() }),
  upstreams: z.record(text, upstream),
  defaultUpstream: text,
  dockerConfig: text.nullable(),
  platforms: z.strictObject({
    sets: z.record(text, z.array(platform, { error: 'expected a list such as [linux/arm64]' }).min(1)),
    hosts: z.record(text, setReference),
    addresses: z.record(text, setReference),
    trustUserAgent: flag,
    onMissing: z.enum(['error', 'verbatim'], { error: 'expected error or verbatim' }),
    primary: platform,
  }),
  cache: z.strictObject({
    memory: z.strictObject({ maxSize: size, maxBlobSize: size }),
    disk: z.strictObject({ path: text, maxSize: size }),
    platforms: setReference,
    onOther: z.enum(['stream', 'deny'], { error: 'expected stream or deny' }),
    redis,
    s3,
  }),
  tags: z.strictObject({ fresh: duration, missing: duration, stale: duration, rules: z.array(tagRule) }),
  repositories: z.array(z.strictObject({ name: text, primary: platform })),
  limits: z.strictObject({
    connections: count,
    headerSize: size,
    headersTimeout: wait,
    requestTimeout: wait,
    keepAlive: wait,
    sendStall: wait,
    stopGrace: wait,
    streamBuffers: size,
    manifestSize: size,
    downloads: count,
    downloadWindows: size,
    downloadResumes: count,
    downloadResumeDelay: wait,
    unreadDownload: size,
    upstreamConnections: count,
    upstreamRequests: count,
    upstreamConnect: wait,
    upstreamHeaders: wait,
    upstreamStall: wait,
    upstreamTokens: count,
    verifiedDigests: count,
  }),
  log: z.strictObject({
    level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'], {
      error: 'expected trace, debug, info, warn, error or silent',
    }),
  }),
});

/** A configuration without mistakes: durations in milliseconds, sizes in bytes. */
export type Config = z.output<typeof configSchema>;

/** @throws ConfigError with every mistake */
export function parseConfig(value: unknown): Config {
  const parsed = configSchema.safeParse(value);
  const mistakes = [...(parsed.error?.issues ?? []).flatMap(toMistakes), ...crossCheck(value)];
  const distinct = [...new Map(mistakes.map((mistake) => [`${mistake.path}: ${mistake.message}`, mistake])).values()];
  if (!parsed.success || distinct.length > 0) throw new ConfigError(distinct);
  return parsed.data;
}

function toMistakes(issue: z.core.$ZodIssue): Mistake[] {
  const path = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: path ? `${path}.${key}` : key, message: 'there is no such key' }));
  }
  return [{ path: path || 'configuration', message: issue.message }];
}

/** What no single field can know: names that must exist elsewhere. Works on what may be wrong in other places. */
function crossCheck(value: unknown): Mistake[] {
  const config = asMap(value) as Partial<z.input<typeof configSchema>>;
  const mistakes: Mistake[] = [];
  const upstreams = Object.keys(asMap(config.upstreams));
  const platforms = asMap(config.platforms);
  const sets = asMap(platforms['sets']);

  const checkUpstream = (path: string, name: unknown) => {
    if (typeof name === 'string' && !upstreams.includes(name))
      mistakes.push({ path, message: `there is no upstream ${name}` });
  };
  const checkSet = (path: string, reference: unknown) => {
    for (const entry of [reference].flat()) {
      if (typeof entry !== 'string' || entry === 'any' || Object.hasOwn(sets, entry) || parsePlatform(entry)) continue;
      mistakes.push({
        path,
        message: `${JSON.stringify(entry)} is no platform such as linux/arm64, no named set, and not any`,
      });
    }
  };

  const cache = asMap(config.cache);
  checkSet('cache.platforms', cache['platforms'] === 'all' ? 'any' : (cache['platforms'] ?? 'any'));
  const places = asMap(cache['redis']);
  if (isSet(places, 'password') && isSet(places, 'passwordFile')) {
    mistakes.push({ path: 'cache.redis.password', message: 'expected either password or passwordFile' });
  }
  const bucket = asMap(cache['s3']);
  const secret = ['secretAccessKey', 'secretAccessKeyFile'].find((key) => isSet(bucket, key));
  if (isSet(bucket, 'accessKeyId') !== (secret !== undefined)) {
    const path = `cache.s3.${secret ?? 'accessKeyId'}`;
    mistakes.push({ path, message: 'expected accessKeyId and its secret together, or neither' });
  }
  const named = ['url', 'cluster', 'sentinels'].filter((key) => isSet(places, key) && [places[key]].flat().length > 0);
  if (named.length > 1) {
    mistakes.push({
      path: 'cache.redis',
      message: `expected one of url, cluster and sentinels, not ${named.join(' and ')}`,
    });
  }
  checkUpstream('defaultUpstream', config.defaultUpstream);
  for (const [index, entry] of (Array.isArray(config.listen) ? config.listen : []).entries()) {
    checkUpstream(`listen.${index}.upstream`, entry?.upstream);
    if (entry?.platforms !== undefined) checkSet(`listen.${index}.platforms`, entry.platforms);
  }
  for (const name of Object.keys(sets)) {
    if (!/^[a-z0-9]+([._-][a-z0-9]+)*$/.test(name) || name === 'any') {
      mistakes.push({
        path: `platforms.sets.${name}`,
        message:
          'a set is named with lower-case letters, digits and . _ - between them, and not any: it stands in paths',
      });
    }
  }
  for (const [host, set] of Object.entries(asMap(platforms['hosts']))) checkSet(`platforms.hosts.${host}`, set);
  for (const [network, set] of Object.entries(asMap(platforms['addresses']))) {
    checkSet(`platforms.addresses.${network}`, set);
    if (!isNetwork(network)) {
      mistakes.push({ path: `platforms.addresses.${network}`, message: 'expected a network such as 10.1.0.0/16' });
    }
  }
  return mistakes;
}

function isSet(map: Record<string, unknown>, key: string): boolean {
  return map[key] !== null && map[key] !== undefined;
}

/** What is no map has been told as a mistake already. */
function asMap(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}

function isNetwork(cidr: string): boolean {
  const [network = '', prefix = '', ...rest] = cidr.split('/');
  return (
    rest.length === 0 && isIP(network) > 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= (isIPv6(network) ? 128 : 32)
  );
}

/** A reference to platforms as the configuration spells it, already known to be right. */
export function resolveSet(reference: string | readonly string[], sets: ReadonlyMap<string, PlatformSet>): PlatformSet {
  const found = new Map<string, Platform>();
  for (const entry of [reference].flat()) {
    const set = entry === 'any' ? 'any' : (sets.get(entry) ?? [parsePlatform(entry)!]);
    if (set === 'any') return 'any';
    for (const one of set) found.set(formatPlatform(one), one);
  }
  return [...found.values()];
}
