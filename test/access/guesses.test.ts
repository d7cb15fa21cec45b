import t from 'tap';
import { createGuesses } from '../../src/access/guesses.ts';

function guessesAt(maxWrong: number, maxAddresses = 100) {
  const clock = { nowMs: 1_000_000 };
  const { begin } = createGuesses({ maxWrong, maxAddresses, now: () => clock.nowMs });
  /** How many of so many wrong ones are looked at. */
  const wrong = (address: string | undefined, times: number) => {
    let looked = 0;
    for (let at = 0; at < times; at++) {
      try {
        begin(address);
        looked += 1;
      } catch {
        // One too many.
      }
    }
    return looked;
  };
  return { begin, wrong, clock };
}

void t.test('63. so many wrong ones in a row, then none, then one after each while', (t) => {
  const { begin, wrong, clock } = guessesAt(10);
  t.equal(wrong('192.0.2.1', 10_000), 10);
  t.throws(() => begin('192.0.2.1'), { kind: 'rateLimited', status: 429, retryAfterS: 6, message: /this address/ });
  t.equal(wrong('192.0.2.2', 3), 3, 'another address is not held to account');
  clock.nowMs += 6000;
  t.equal(wrong('192.0.2.1', 100), 1);
  clock.nowMs += 3000;
  t.equal(wrong('192.0.2.1', 100), 0, 'half a while is none');
  clock.nowMs += 3000;
  t.equal(wrong('192.0.2.1', 100), 1);
  clock.nowMs += 86_400_000;
  t.equal(wrong('192.0.2.1', 100), 10, 'no more than that after a day');
  t.end();
});

void t.test('63. right ones do not count', (t) => {
  const { begin, wrong } = guessesAt(3);
  for (let at = 0; at < 1000; at++) begin('192.0.2.1')();
  t.equal(wrong('192.0.2.1', 10), 3);
  t.end();
});

void t.test('63. those at the same moment count before any is answered', (t) => {
  const { begin } = guessesAt(2);
  const [first] = [begin('192.0.2.1'), begin('192.0.2.1')];
  t.throws(() => begin('192.0.2.1'), { kind: 'rateLimited', message: /Too many/ });
  first();
  begin('192.0.2.1');
  t.throws(() => begin('192.0.2.1'), { kind: 'rateLimited', message: /Too many/ });
  t.end();
});

void t.test('63. a clock that is set back neither forgives nor locks out for longer', (t) => {
  const { wrong, clock } = guessesAt(5);
  t.equal(wrong('192.0.2.1', 9), 5);
  clock.nowMs -= 3_600_000;
  t.equal(wrong('192.0.2.1', 9), 0);
  clock.nowMs += 3_600_000 + 60_000;
  t.equal(wrong('192.0.2.1', 9), 5);
  t.end();
});

void t.test('63. one who has a network of IPv6 is one', (t) => {
  const same: [string, string][] = [
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:ffff'],
    ['2001:db8::1', '2001:db8:0:0:8::'],
    ['::1', '::2'],
    ['fe80::1%eth0', 'fe80::2%eth1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
  ];
  for (const [one, other] of same) {
    const { wrong } = guessesAt(4);
    t.equal(wrong(one, 9), 4);
    t.equal(wrong(other, 9), 0, `${one} and ${other}`);
  }
  const { wrong } = guessesAt(4);
  wrong('2001:db8:1:2::1', 9);
  t.equal(wrong('2001:db8:1:3::1', 9), 4, 'the next network is another');
  wrong('::ffff:192.0.2.1', 9);
  t.equal(wrong('::ffff:192.0.2.2', 9), 4, 'IPv4 in IPv6 clothes is each its own');
  t.equal(wrong(undefined, 9), 4, 'a connection that is gone');
  t.end();
});

void t.test('63. so many addresses are remembered, and no more', (t) => {
  const { wrong } = guessesAt(1, 10);
  for (let at = 0; at < 1000; at++) t.equal(wrong(`198.51.100.${at}`, 2), 1);
  t.equal(wrong('198.51.100.999', 1), 0, 'the last is known');
  t.equal(wrong('198.51.100.0', 1), 1, 'the first is forgotten');
  t.end();
});
