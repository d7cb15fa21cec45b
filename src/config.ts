import { isIP, isIPv6 } from 'node:net';
import { z } from 'zod';
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

const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Record<string, number> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

/** Text with a unit; milliseconds once it is read. */
const duration = measure(durationUnits, 'a duration such as 500ms, 60s or 2h');
/** Text with a unit; bytes once it is read. */
const size = measure(sizeUnits, 'a size such as 512KiB or 100GiB');

function measure(units: Record<string, number>, expected: string) {
  const grammar = new RegExp(`^(\\d{1,15}(?:\\.\\d+)?)(${Object.keys(units).join('|')})$`);
  return z
    .union([z.string(), z.literal(0)], { error: `expected ${expected}` })
    .refine((text) => text === 0 || grammar.test(text), { error: `expected ${expected}` })
    .transform((text) => {
      const [, amount = '0', unit = ''] = grammar.exec(String(text)) ?? [];
      return Math.round(Number(amount) * (units[unit] ?? 0));
    });
}

/** A duration that is waited for: the runtime's timers end at once beyond this. */
const wait = duration.refine((ms) => ms < 2 ** 31, { error: 'expected at most 24d' });

const count = z.int({ error: 'expected a whole number of at least 1' }).min(1, { error: 'expected at least 1' });
const text = z.string({ error: 'expected text' }).min(1, { error: 'expected text' });
const anyUrl = z
  .string({ error: 'expected a URL such as https://registry.example' })
  .refine((value) => URL.canParse(value) && /^https?:$/.test(new URL(value).protocol), {
    error: 'expected a URL such as https://registry.example',
  });
const url = anyUrl.refine((value) => !URL.canParse(value) || !(new URL(value).username || new URL(value).password), {
  error: 'a login does not belong into the URL; use credentials',
});

const address = z
  .string({ error: 'expected an address such as 127.0.0.1:5000' })
  .refine((value) => parseAddress(value) !== undefined, {
    error: 'expected an address such as 127.0.0.1:5000 or :5000',
  });

const platform = z
  .string({ error: 'expected a platform such as linux/arm64' })
  .refine((value) => parsePlatform(value) !== undefined, {
    error: 'expected a platform such as linux/arm64 or linux/arm/v7',
  });

/** A map with these keys and no others. */
function strict<T extends z.ZodRawShape>(expected: string, shape: T) {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'invalid_type' ? `expected ${expected}` : undefined),
  });
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

const flag = z.boolean({ error: 'expected true or false' });

export const configSchema = z.strictObject({
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
    disk: z.strictObject({ path: text }),
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

/** `127.0.0.1:5000`, `[::1]:5000`, `localhost:5000`, or `:5000` for every address. */
export function parseAddress(value: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]*)):(\d{1,5})$/.exec(value);
  if (!match || Number(match[3]) > 65535) return undefined;
  return { host: match[1] ?? (match[2] || '::'), port: Number(match[3]) };
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
