import type { Answer } from './answers.ts';
import { firstOf } from './answers.ts';
import type { Budget } from './upstream.ts';

/**
 * What an answer says of a pull quota: `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600` (Docker Hub,
 * "Docker Hub usage and limits"), and `ratelimit-reset` in seconds where there is one (draft-ietf-httpapi-ratelimit-headers).
 */
export function budgetOf(headers: Answer['headers'], nowMs: number): Budget | undefined {
  const limit = numberOf(headers, 'limit');
  const remaining = numberOf(headers, 'remaining');
  if (limit === undefined || remaining === undefined || limit === 0) return undefined;
  const resetS = numberOf(headers, 'reset');
  return { remaining, limit, ...(resetS !== undefined && { resetsAtMs: nowMs + resetS * 1000 }) };
}

function numberOf(headers: Answer['headers'], what: string): number | undefined {
  const text = firstOf(headers[`ratelimit-${what}`] ?? headers[`x-ratelimit-${what}`]) ?? '';
  const [, digits] = /^\s*(\d{1,9})(?:\s*[;,]|\s*$)/.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits);
}
