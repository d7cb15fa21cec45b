import t from 'tap';
import type { Config } from '../../src/config.ts';
import { parseConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { parseRepositoryName } from '../../src/oci/reference.ts';
import { createOfflineRegistry } from '../../src/upstream/offline.ts';
import { limitBandwidth } from '../../src/wiring/bandwidth.ts';
import { defaults } from '../fixtures/mirror.ts';
import type { Teardown } from '../fixtures/mirror.ts';

const repository = parseRepositoryName('team/app');
const piece = Buffer.alloc(1024);
const noon = new Date(2026, 0, 1, 12).getTime();

/** How many pieces of a KiB pass at once: a second's worth, or all ten. */
async function passing(t: Teardown, bandwidth: unknown[], from = 'docker.io', served: string[] = [], nowMs = noon) {
  const config: Config = parseConfig({ ...defaults, bandwidth });
  const closers: (() => unknown)[] = [];
  t.teardown(() => closers.forEach((close) => close()));
  const log = createLog('silent', { isTerminal: false, write: () => undefined });
  const context = { config, log, metrics: createMetrics(), now: () => nowMs, closers };
  const limited = limitBandwidth(context, { served: () => ({ platforms: served, isOpen: false }) });
  const upstream = limited({
    ...createOfflineRegistry(from),
    blob: () =>
      Promise.resolve({
        offset: 0,
        body: (async function* () {
          for (let at = 0; at < 10; at++) yield Promise.resolve(piece);
        })(),
        cancel: () => undefined,
      }),
  });
  const answer = await upstream.blob(repository, digestOf(piece), 0);
  let count = 0;
  void (async () => {
    for await (const _ of answer!.body) count++;
  })().catch(() => undefined);
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  return count;
}

void t.test('bandwidth: a limit holds for its upstream, and for no other', async (t) => {
  const rules = [{ rate: '3KiB', upstream: 'docker.io' }];
  t.equal(await passing(t, rules), 3);
  t.equal(await passing(t, rules, 'ghcr.io'), 10);
  t.equal(await passing(t, []), 10);
  t.equal(await passing(t, [{ rate: '4KiB' }], 'ghcr.io'), 4, 'for all, where none is said');
});

void t.test('bandwidth: in its hours, by the clock of this machine', async (t) => {
  const rules = [{ rate: '3KiB', hours: ['08:00-18:00'] }];
  t.equal(await passing(t, rules), 3);
  t.equal(await passing(t, rules, 'docker.io', [], noon + 10 * 3_600_000), 10);
});

void t.test('bandwidth: of a platform, for what serves no other', async (t) => {
  const rules = [{ rate: '2KiB', platform: 'linux/amd64' }];
  t.equal(await passing(t, rules, 'docker.io', ['linux/amd64']), 2);
  t.equal(await passing(t, rules, 'docker.io', ['linux/amd64', 'linux/arm64']), 10);
  t.equal(await passing(t, rules, 'docker.io', ['linux/arm64']), 10);
  t.equal(await passing(t, rules, 'docker.io', []), 10, 'what nobody can place is let through');
});

void t.test('bandwidth: of all that fit, the slowest decides', async (t) => {
  const rules = [{ rate: '6KiB' }, { rate: '2KiB', platform: 'linux/amd64' }, { rate: '4KiB', upstream: 'docker.io' }];
  t.equal(await passing(t, rules, 'docker.io', ['linux/amd64']), 2);
  t.equal(await passing(t, rules, 'docker.io', ['linux/arm64']), 4);
  t.equal(await passing(t, rules, 'ghcr.io', ['linux/arm64']), 6);
});

function mistakesOf(rule: object): string[] {
  try {
    parseConfig({ ...defaults, bandwidth: [rule] });
    return [];
  } catch (error) {
    return (error as Error).message.split('\n');
  }
}

void t.test('bandwidth: mistakes are told where they stand', (t) => {
  t.same(mistakesOf({ rate: '0B' }), ['bandwidth.0.rate: expected more than nothing']);
  t.same(mistakesOf({ rate: '1MiB', upstream: 'nowhere' }), ['bandwidth.0.upstream: there is no upstream nowhere']);
  t.match(mistakesOf({ rate: '1MiB', hours: ['8-18'] }), [/^bandwidth\.0\.hours\.0: expected hours of the day/]);
  t.end();
});
