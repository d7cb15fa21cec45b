import { z } from 'zod';
import { cache } from './config-cache.ts';
import { crossCheck } from './config-cross-check.ts';
import type { Mistake } from './config-cross-check.ts';
import {
  address,
  anyUrl,
  count,
  duration,
  flag,
  platform,
  setReference,
  size,
  some,
  strict,
  text,
  url,
  wait,
} from './config-values.ts';
import { isRepositoryName, isTag } from './oci/reference.ts';
import { formatPlatform, parsePlatform } from './oci/platform.ts';
import type { Platform, PlatformSet } from './oci/platform.ts';

export type { Mistake } from './config-cross-check.ts';

/** All that is wrong with a configuration, at once. */
export class ConfigError extends Error {
  readonly mistakes: readonly Mistake[];

  constructor(mistakes: readonly Mistake[]) {
    super(mistakes.map(({ path, message }) => `${path}: ${message}`).join('\n'));
    this.name = 'ConfigError';
    this.mistakes = mistakes;
  }
}

const listener = strict('a map such as { address: 127.0.0.1:5000 }', {
  address,
  platforms: setReference.optional(),
  view: z
    .enum(['image', 'index', 'combined', 'alternates'], { error: 'expected image, index, combined or alternates' })
    .optional(),
  upstream: text.optional(),
  tls: z.strictObject({ cert: text, key: text, clientCa: text.optional() }).optional(),
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
  clientCertificate: z.strictObject({ cert: text, key: text }).optional(),
  proxy: z
    .union([z.literal('none'), anyUrl], { error: 'expected a URL such as http://proxy.example:3128, or none' })
    .optional(),
  trustedHosts: z.array(text, { error: 'expected a list of hosts' }).optional(),
  hub: flag.optional(),
});

const tagRule = z
  .strictObject({ pattern: text, fresh: duration.optional(), immutable: z.literal(true).optional() })
  .refine((rule) => (rule.fresh === undefined) !== (rule.immutable === undefined), {
    error: 'expected either fresh or immutable: true',
  });

const names = z.array(text, { error: 'expected a list of users and groups' });

const overlay = strict('a map such as { platform: linux/riscv64, from: ghcr.io/riscv/mysql }', {
  platform,
  from: text.refine(isRepositoryName, { error: 'expected a repository such as ghcr.io/riscv/mysql' }),
  tag: text.refine(isTag, { error: 'expected a tag: letters, digits and _ . -, at most 128' }).optional(),
  override: flag.optional(),
});

const owned = z.union([z.literal('*'), platform], { error: 'expected a platform such as linux/arm64, or *' });

const repository = strict('a map such as { name: team/app, hosted: true }', {
  name: text.regex(/^[a-z0-9*._/-]+$/, { error: 'expected the name of a repository, with * for any text' }),
  primary: platform.optional(),
  pull: names.optional(),
  overlays: z.array(overlay, { error: 'expected a list of overlays' }).optional(),
  hosted: flag.optional(),
  compose: flag.optional(),
  push: names.optional(),
  owners: z.record(owned, some(text, 'expected a list of users and groups', 'expected at least one owner')).optional(),
});

const issuer = strict('a map such as { url: https://issuer.example, audience: narrows, prefix: "ci:" }', {
  url: text,
  audience: text,
  prefix: text.regex(/^[^*\s]+:$/, { error: 'expected a word with a colon behind it, such as "ci:"' }),
  user: text.optional(),
  groups: text.optional(),
  jwks: text.optional(),
  ca: text.optional(),
  tokenFile: text.optional(),
});

const access = z.strictObject({
  mode: z.enum(['none', 'basic', 'token', 'certificate', 'upstream'], {
    error: 'expected none, basic, token, certificate or upstream',
  }),
  htpasswd: text.nullable(),
  groups: z.record(text, names),
  pull: names,
  token: z.strictObject({
    realm: url.nullable(),
    service: text.regex(/^[\w.:/-]+$/, { error: 'expected letters, digits and . : / - _' }),
    lifetime: duration.refine((ms) => ms >= 60_000, {
      error: 'expected at least 60s, which is what clients take for granted',
    }),
    keys: z.array(text, { error: 'expected a list of files' }),
  }),
  issuers: z.array(issuer, { error: 'expected a list of issuers' }),
  upstream: z.strictObject({ registry: text.nullable(), granted: duration, refused: duration }),
});

const percentError = 'expected a whole number from 0 to 100';
const percent = z.int({ error: percentError }).min(0, { error: percentError }).max(100, { error: percentError });

const hosting = z.strictObject({
  history: count,
  unused: duration,
  untagged: duration.nullable(),
  uploads: count,
  uploadSize: size,
  uploadIdle: duration,
});

const hours = z
  .string({ error: 'expected hours of the day such as 01:00-05:30' })
  .regex(/^(?:[01]\d|2[0-3]):[0-5]\d-(?:[01]\d|2[0-3]):[0-5]\d$/, {
    error: 'expected hours of the day such as 01:00-05:30',
  });

const warm = z.strictObject({
  every: duration.refine((ms) => ms >= 1000, { error: 'expected at least 1s' }).nullable(),
  hours: z.array(hours, { error: 'expected a list such as [01:00-05:30]' }),
  bandwidth: size.refine((bytes) => bytes > 0, { error: 'expected more than nothing' }).nullable(),
  downloads: count,
  learnt: duration.nullable(),
  spare: percent,
  patience: wait,
  retries: count,
  retryDelay: wait,
  referrersFresh: duration,
});

const bandwidth = strict('a map such as { rate: 5MiB, hours: [08:00-18:00], upstream: docker.io }', {
  rate: size.refine((bytes) => bytes > 0, { error: 'expected more than nothing' }),
  hours: z.array(hours, { error: 'expected a list such as [08:00-18:00]' }).optional(),
  upstream: text.optional(),
  platform: platform.optional(),
});

export const configSchema = z.strictObject({
  workers: count,
  listen: some(listener, 'expected a list of listeners', 'expected at least one listener'),
  admin: z.strictObject({
    address: address.nullable(),
    hosts: z.array(text, { error: 'expected a list of host names' }),
    act: names,
  }),
  upstreams: z.record(text, upstream),
  defaultUpstream: text,
  dockerConfig: text.nullable(),
  platforms: z.strictObject({
    sets: z.record(text, some(platform, 'expected a list such as [linux/arm64]')),
    hosts: z.record(text, setReference),
    addresses: z.record(text, setReference),
    users: z.record(text, setReference),
    trustUserAgent: flag,
    onMissing: z.enum(['error', 'verbatim'], { error: 'expected error or verbatim' }),
    primary: platform,
  }),
  cache,
  tags: z.strictObject({
    fresh: duration,
    missing: duration,
    stale: duration,
    spare: percent,
    rules: z.array(tagRule),
  }),
  repositories: z.array(repository, { error: 'expected a list of repositories' }),
  hosting,
  access,
  offline: flag,
  bandwidth: z.array(bandwidth, { error: 'expected a list of limits' }),
  warm,
  limits: z.strictObject({
    connections: count,
    connectionsPerAddress: count.nullable(),
    requestsPerAddress: count.nullable(),
    knownAddresses: count,
    headerSize: size,
    headersTimeout: wait,
    requestStall: wait,
    keepAlive: wait,
    sendStall: wait,
    stopGrace: wait,
    streamBuffers: size,
    manifestSize: size,
    downloads: count,
    downloadWindows: size,
    receiveBuffers: size,
    downloadResumes: count,
    downloadResumeDelay: wait,
    unreadDownload: size,
    leftovers: size,
    upstreamConnections: count,
    upstreamRequests: count,
    upstreamConnect: wait,
    upstreamHeaders: wait,
    upstreamStall: wait,
    upstreamTokens: count,
    verifiedDigests: count,
    passwordChecks: count,
    rememberedPasswords: count,
    wrongPasswords: count,
    wrongAddresses: count,
    callerRights: count,
    callerQuestions: count,
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
  const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message;
  return [{ path: path || 'configuration', message }];
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
