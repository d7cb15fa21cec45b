import { z } from 'zod';
import { parsePlatform } from './oci/platform.ts';

const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Record<string, number> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

/** Text with a unit; milliseconds once it is read. */
export const duration = measure(durationUnits, 'a duration such as 500ms, 60s or 2h');
/** Text with a unit; bytes once it is read. */
export const size = measure(sizeUnits, 'a size such as 512KiB or 100GiB');

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
export const wait = duration.refine((ms) => ms < 2 ** 31, { error: 'expected at most 24d' });

export const count = z.int({ error: 'expected a whole number of at least 1' }).min(1, { error: 'expected at least 1' });
export const text = z
  .string({ error: 'expected text' })
  .refine((value) => value !== '', { error: 'expected text' })
  .meta({ minLength: 1 });

/** At least one of them. The library's own check asks what is no list for its length, and fails at what that may be. */
export function some<T extends z.ZodType>(entry: T, expected: string, none = expected) {
  return z
    .array(entry, { error: expected })
    .refine((list) => list.length > 0, { error: none })
    .meta({ minItems: 1 });
}
export const anyUrl = z
  .string({ error: 'expected a URL such as https://registry.example' })
  .refine((value) => URL.canParse(value) && /^https?:$/.test(new URL(value).protocol), {
    error: 'expected a URL such as https://registry.example',
  });
export const url = anyUrl.refine(
  (value) => !URL.canParse(value) || !(new URL(value).username || new URL(value).password),
  {
    error: 'a login does not belong into the URL; use credentials',
  },
);

export const address = z
  .string({ error: 'expected an address such as 127.0.0.1:5000' })
  .refine((value) => parseAddress(value) !== undefined, {
    error: 'expected an address such as 127.0.0.1:5000 or :5000',
  });

export const platform = z
  .string({ error: 'expected a platform such as linux/arm64' })
  .refine((value) => parsePlatform(value) !== undefined, {
    error: 'expected a platform such as linux/arm64 or linux/arm/v7',
  });

/** A map with these keys and no others. */
export function strict<T extends z.ZodRawShape>(expected: string, shape: T) {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'invalid_type' ? `expected ${expected}` : undefined),
  });
}

export const flag = z.boolean({ error: 'expected true or false' });

/** `127.0.0.1:5000`, `[::1]:5000`, `localhost:5000`, or `:5000` for every address. */
export function parseAddress(value: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]*)):(\d{1,5})$/.exec(value);
  if (!match || Number(match[3]) > 65535) return undefined;
  return { host: match[1] ?? (match[2] || '::'), port: Number(match[3]) };
}

/** Platforms, as a configuration says them. */
export const setReference = z.union([text, some(text, 'expected a list')], {
  error: 'expected a platform, a list of them, a named set, or any',
});
