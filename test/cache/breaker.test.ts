import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { createBreaker, TierAway } from '../../src/cache/breaker.ts';
import type { Breaker, BreakerOptions } from '../../src/cache/breaker.ts';
import { until } from '../fixtures/downloads.ts';
import type { Teardown } from '../fixtures/mirror.ts';
import { failureOf, within } from '../fixtures/servers.ts';

const stallMs = 200;

interface Stage {
  readonly breaker: Breaker;
  readonly changes: unknown[];
  /** When each probe was made. */
  readonly probes: number[];
  /** What the next probe does. */
  probe(): Promise<unknown>;
}

function prepare(t: Teardown, over: Partial<BreakerOptions> = {}): Stage {
  const stage = {
    changes: [] as unknown[],
    probes: [] as number[],
    probe: (): Promise<unknown> => Promise.reject(new Error('still broken')),
  };
  const breaker = createBreaker({
    name: 'tier',
    stallMs,
    retryMs: 20,
    maxRetryMs: 80,
    probe() {
      stage.probes.push(performance.now());
      return stage.probe();
    },
    isAway: (error) => (error as Error).message !== 'refused',
    onChange: (error) => stage.changes.push(error),
    ...over,
  });
  t.teardown(() => breaker.close());
  return Object.assign(stage, { breaker });
}

const never = () => new Promise<never>(() => undefined);
const fail = (message: string) => () => Promise.reject(new Error(message));

const refuse = () => {
  throw new Error('refused');
};

function trip({ breaker }: Stage): Promise<Error> {
  return failureOf(breaker.run(fail('gone')));
}

/** Holds up this whole process, as a large hash would. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

void t.test('closed: what is asked is answered', async (t) => {
  const { breaker, changes } = prepare(t);
  t.equal(await breaker.run(() => Promise.resolve(7)), 7);
  t.equal(breaker.isOpen, false);
  t.same(changes, []);
});

void t.test('closed: a refusal is told to whoever asked, and to nobody else', async (t) => {
  const { breaker, changes } = prepare(t);
  const slow = breaker.run(() => delay(20, 'slow'));
  for (let at = 0; at < 3; at++) await t.rejects(breaker.run(fail('refused')), { message: 'refused' });
  t.equal(breaker.isOpen, false);
  t.equal(await slow, 'slow');
  t.same(changes, []);
});

void t.test('trip: a failure that says "away" sends away whoever asked, with the reason', async (t) => {
  const { breaker, changes } = prepare(t);
  const error = await failureOf(breaker.run(fail('gone')));
  t.ok(error instanceof TierAway);
  t.match(error, { message: /^tier does not answer/, cause: { message: 'gone' } });
  t.equal(breaker.isOpen, true);
  t.match(changes, [{ message: 'gone' }]);
});

void t.test('trip: everyone who waits is sent away at once', async (t) => {
  const stage = prepare(t);
  const pending = Array.from({ length: 20 }, () => failureOf(stage.breaker.run(never)));
  await trip(stage);
  const failures = await within(stallMs / 2, 'being sent away', Promise.all(pending));
  t.ok(failures.every((error) => error instanceof TierAway));
  t.match(failures[0], { cause: { message: 'gone' } });
});

void t.test('open: nothing is asked', async (t) => {
  const stage = prepare(t);
  await trip(stage);
  let asked = 0;
  for (let at = 0; at < 100; at++) {
    const error = await failureOf(stage.breaker.run(() => Promise.resolve(asked++)));
    if (!(error instanceof TierAway)) t.fail(error.message);
  }
  t.equal(asked, 0);
});

void t.test('trip: by hand, as a connection that could not be made', async (t) => {
  const { breaker, changes } = prepare(t);
  const pending = failureOf(breaker.run(never));
  breaker.trip(new Error('no route'));
  t.match(await pending, { name: 'TierAway', cause: { message: 'no route' } });
  t.equal(breaker.isOpen, true);
  breaker.trip(new Error('again'));
  t.match(changes, [{ message: 'no route' }], 'one that is open does not open again');
});

void t.test('trip: many failures at once are one change', async (t) => {
  const { breaker, changes } = prepare(t);
  const failures = await Promise.all(
    Array.from({ length: 50 }, (_, at) => failureOf(breaker.run(() => delay(at % 7).then(fail(`gone ${at}`))))),
  );
  t.ok(failures.every((error) => error instanceof TierAway));
  t.equal(changes.length, 1);
});

void t.test('silence: a question without an answer is given up after the stall', async (t) => {
  const { breaker, changes } = prepare(t);
  const start = performance.now();
  const error = await within(4 * stallMs, 'giving up', failureOf(breaker.run(never)));
  t.ok(error instanceof TierAway);
  t.ok(performance.now() - start >= stallMs - 1);
  t.match(changes, [{ message: `nothing came for ${stallMs} ms` }]);
});

void t.test('silence: a question that fails before it is asked is none', async (t) => {
  const { breaker, changes } = prepare(t);
  await t.rejects(breaker.run(refuse), { message: 'refused' });
  t.equal(await breaker.run(() => delay(stallMs * 0.7, 'first')), 'first');
  t.equal(await breaker.run(() => delay(stallMs * 0.7, 'second')), 'second');
  t.same(changes, []);
});

void t.test('silence: more questions are no sign of life', async (t) => {
  const { breaker } = prepare(t, { stallMs: 300 });
  const start = performance.now();
  const first = failureOf(breaker.run(never)).then((error) => ({ error, ms: performance.now() - start }));
  const asking = setInterval(() => void breaker.run(never).catch(() => undefined), 30);
  t.teardown(() => clearInterval(asking));
  const { error, ms } = await first;
  t.ok(error instanceof TierAway);
  t.ok(ms < 550, `${ms} ms`);
});

void t.test('silence: a tier that is busy and goes on answering is not in trouble', async (t) => {
  const { breaker, changes } = prepare(t);
  const hanging = failureOf(breaker.run(never));
  for (const end = performance.now() + 5 * stallMs; performance.now() < end;) {
    await breaker.run(() => delay(20));
    await t.rejects(breaker.run(fail('refused')), { message: 'refused' }, 'a refusal is an answer as well');
  }
  t.equal(breaker.isOpen, false);
  t.same(changes, []);
  t.ok((await within(4 * stallMs, 'giving up', hanging)) instanceof TierAway, 'once the others are silent, it is');
});

void t.test('silence: a time without questions is none', async (t) => {
  const { breaker, changes } = prepare(t);
  for (let at = 0; at < 3; at++) {
    t.equal(await breaker.run(() => delay(stallMs * 0.6, 'late, but in time')), 'late, but in time');
    await delay(stallMs * 0.6);
  }
  t.same(changes, []);
});

void t.test('open: a probe that comes through closes it, with one change', async (t) => {
  const stage = prepare(t);
  await trip(stage);
  await until(() => stage.probes.length >= 3, 'three probes');
  t.equal(stage.breaker.isOpen, true);
  stage.probe = () => Promise.resolve();
  await until(() => !stage.breaker.isOpen, 'closing');
  t.match(stage.changes, [{ message: 'gone' }, undefined]);
  t.equal(await stage.breaker.run(() => Promise.resolve('works')), 'works');
  const made = stage.probes.length;
  await trip(stage);
  t.equal(stage.changes.length, 3);
  await until(() => stage.changes.length === 4, 'closing again');
  t.equal(stage.probes.length, made + 1, 'while it is closed nothing is probed');
});

void t.test('51. half open: clients do not come along with the probe', async (t) => {
  const stage = prepare(t);
  const probing = Promise.withResolvers<void>();
  stage.probe = () => probing.promise;
  await trip(stage);
  await until(() => stage.probes.length === 1, 'the probe');
  await t.rejects(
    stage.breaker.run(() => Promise.resolve()),
    TierAway,
  );
  probing.resolve();
  await until(() => !stage.breaker.isOpen, 'closing');
});

void t.test('51. half open: a probe that hangs has failed after the stall, and another comes', async (t) => {
  const stage = prepare(t);
  stage.probe = never;
  await trip(stage);
  await until(() => stage.probes.length === 2, 'the second probe');
  t.ok(stage.probes[1]! - stage.probes[0]! >= stallMs - 1);
  stage.probe = () => Promise.resolve();
  await until(() => !stage.breaker.isOpen, 'closing');
  t.equal(stage.changes.length, 2);
});

void t.test('open: the waits between probes double, up to the most', async (t) => {
  const stage = prepare(t);
  const start = performance.now();
  await trip(stage);
  await until(() => stage.probes.length >= 6, 'six probes');
  const waits = stage.probes.slice(0, 6).map((at, index) => at - (stage.probes[index - 1] ?? start));
  // Each may be a quarter shorter, and timers are a millisecond early at times.
  for (const [index, least] of [20, 40, 80, 80, 80, 80].entries()) {
    t.ok(waits[index]! >= least * 0.75 - 1, `wait ${index} of ${waits[index]} ms`);
  }
  t.ok(waits[5]! < 320, 'and no further');
});

void t.test('close: no probe comes after, and nobody is told any more', async (t) => {
  const [closed, other] = [prepare(t), prepare(t)];
  await Promise.all([trip(closed), trip(other)]);
  closed.breaker.close();
  await until(() => other.probes.length >= 4, 'the probes of another');
  t.equal(closed.probes.length, 0);
  t.equal(closed.changes.length, 1);
  await t.rejects(
    closed.breaker.run(() => Promise.resolve()),
    TierAway,
  );
});

void t.test('close: a probe that is on its way changes nothing any more', async (t) => {
  const stage = prepare(t);
  const probing = Promise.withResolvers<void>();
  stage.probe = () => probing.promise;
  await trip(stage);
  await until(() => stage.probes.length === 1, 'the probe');
  stage.breaker.close();
  probing.resolve();
  await new Promise(setImmediate);
  t.equal(stage.changes.length, 1);
});

void t.test('close: leaves no timer that keeps a process from ending', async (t) => {
  const source = `
    import { createBreaker } from ${JSON.stringify(new URL('../../src/cache/breaker.ts', import.meta.url).href)};
    const options = { stallMs: 60_000, retryMs: 60_000, maxRetryMs: 60_000, isAway: () => true, onChange() {} };
    for (const end of ['watch', 'retry']) {
      const breaker = createBreaker({ ...options, name: end, probe: () => Promise.resolve() });
      breaker.run(() => new Promise(() => {})).catch(() => {});
      if (end === 'retry') breaker.trip(new Error('gone'));
      breaker.close();
    }
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], { stdio: 'inherit' });
  t.teardown(() => child.kill('SIGKILL'));
  t.same(await within(10_000, 'the end of the process', once(child, 'exit')), [0, null]);
});

/** Answers each piece with itself, in a process that goes on while this one stands still. */
async function startEcho(t: Teardown): Promise<number> {
  const source = `
    const server = require('node:net').createServer((socket) => socket.pipe(socket));
    server.listen(0, '127.0.0.1', () => console.log(server.address().port));
  `;
  const child = spawn(process.execPath, ['--eval', source], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return Number(line.toString());
}

void t.test('a process that was busy itself reads its answers before it judges', async (t) => {
  const socket = connect(await startEcho(t), '127.0.0.1');
  t.teardown(() => socket.destroy());
  await once(socket, 'connect');
  const { breaker, changes } = prepare(t, { stallMs: 50 });
  for (let at = 0; at < 5; at++) {
    const answer = breaker.run(() => once(socket, 'data'));
    await new Promise<void>((resolve) => socket.write('ping', () => resolve()));
    block(250);
    t.match(await answer, [Buffer.from('ping')]);
  }
  t.same(changes, []);
});

void t.test('a process that was busy itself before its question was even out judges nobody by that', async (t) => {
  const socket = connect(await startEcho(t), '127.0.0.1');
  t.teardown(() => socket.destroy());
  await once(socket, 'connect');
  const { breaker, changes } = prepare(t, { stallMs: 50 });
  for (let at = 0; at < 5; at++) {
    // Client libraries gather what they write until the end of a turn.
    const answer = breaker.run(() => {
      setImmediate(() => socket.write('ping'));
      return once(socket, 'data');
    });
    block(250);
    t.match(await answer, [Buffer.from('ping')]);
  }
  t.same(changes, []);
});
