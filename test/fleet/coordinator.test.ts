import t from 'tap';
import { createCoordinator } from '../../src/fleet/coordinator.ts';

void t.test('coordinator: whoever asks first leads, everyone else is told where', (t) => {
  const { join } = createCoordinator();
  t.equal(join(1, 'one', 'a'), undefined);
  t.equal(join(2, 'two', 'a'), 'one');
  t.equal(join(3, 'three', 'a'), 'one');
  t.equal(join(2, 'two', 'b'), undefined, 'each download has a leader of its own');
  t.equal(join(1, 'one', 'b'), 'two');
  t.end();
});

void t.test('coordinator: who leads and asks again leads still', (t) => {
  const { join } = createCoordinator();
  join(1, 'one', 'a');
  t.equal(join(1, 'one', 'a'), undefined);
  t.equal(join(2, 'two', 'a'), 'one');
  t.end();
});

void t.test('coordinator: only the leader can leave its place', (t) => {
  const { join, leave } = createCoordinator();
  join(1, 'one', 'a');
  leave(2, 'a');
  t.equal(join(2, 'two', 'a'), 'one');
  leave(1, 'b');
  t.equal(join(2, 'two', 'a'), 'one');
  leave(1, 'a');
  t.equal(join(2, 'two', 'a'), undefined);
  leave(1, 'a');
  t.equal(join(3, 'three', 'a'), 'two', 'whoever led before has no say');
  t.end();
});

void t.test('coordinator: after a dispute the next to ask leads, and what is said of the one before is past', (t) => {
  const { join, dispute } = createCoordinator();
  join(1, 'one', 'a');
  join(1, 'one', 'b');
  for (const [worker, place] of [
    [2, 'two'],
    [3, 'three'],
    [4, 'four'],
  ] as const)
    t.equal(join(worker, place, 'a'), 'one');
  dispute('a', 'one');
  t.equal(join(2, 'two', 'a'), undefined);
  // They had followed the same silence, and say so later.
  dispute('a', 'one');
  t.equal(join(3, 'three', 'a'), 'two');
  dispute('a', 'one');
  t.equal(join(4, 'four', 'a'), 'two');
  t.equal(join(1, 'one', 'a'), 'two', 'the silent one comes back and follows');
  t.equal(join(2, 'two', 'b'), 'one', 'of its other downloads nobody complained');
  t.end();
});

void t.test('coordinator: with a worker goes all that it led, and nothing else', (t) => {
  const { join, gone } = createCoordinator();
  join(1, 'one', 'a');
  join(1, 'one', 'b');
  join(2, 'two', 'c');
  gone(1);
  t.equal(join(3, 'three', 'a'), undefined);
  t.equal(join(2, 'two', 'b'), undefined);
  t.equal(join(3, 'three', 'c'), 'two');
  gone(7);
  t.equal(join(1, 'one', 'a'), 'three');
  t.end();
});
