import { createGuesses } from '../access/guesses.ts';
import { createVerdicts } from '../access/verdicts.ts';
import type { Records } from '../cache/records.ts';
import { createCallerRights } from '../pull/caller-rights.ts';
import type { CallerRights } from '../pull/caller-rights.ts';
import type { Context } from './context.ts';
import type { Upstreams } from './upstreams.ts';

/** Who asks an upstream what callers may read; undefined where the configuration says that itself. */
export function openCallerRights(
  { config, now, isCommand = false }: Context,
  records: Records,
  { asCaller }: Upstreams,
): CallerRights | undefined {
  const { mode, upstream } = config.access;
  // Whoever runs a command beside a store can read its files.
  if (mode !== 'upstream' || upstream.registry === null || isCommand) return undefined;
  const { callerRights, callerQuestions, wrongPasswords, wrongAddresses } = config.limits;
  const verdicts = createVerdicts({
    grantedMs: upstream.granted,
    refusedMs: upstream.refused,
    maxVerdicts: callerRights,
    maxQuestions: callerQuestions,
    guesses: createGuesses({ maxWrong: wrongPasswords, maxAddresses: wrongAddresses, now }),
    now,
  });
  return createCallerRights({ registry: upstream.registry, verdicts, records, open: asCaller });
}
