import t from 'tap';
import { createAddressLimits } from '../../src/access/addresses.ts';

let nowMs = 1_000_000;
const options = { maxConnections: 2, requestsPerS: 5, maxAddresses: 2, now: () => nowMs };

void t.test('42. addresses: so many connections each, and one that ends makes room', (t) => {
  const limits = createAddressLimits(options);
  t.same(
    [1, 2, 3].map(() => limits.open('10.0.0.1')),
    [true, true, false],
  );
  t.ok(limits.open('10.0.0.2'), 'another has its own');
  t.notOk(limits.open('::ffff:10.0.0.1'), 'the same, written as IPv6');
  limits.close('10.0.0.1');
  t.ok(limits.open('10.0.0.1'));
  t.same(['2001:db8::1', '2001:db8::2', '2001:db8:0:0:5::'].map(limits.open), [true, true, false], 'a site is one');
  t.ok(limits.open('2001:db8:0:1::1'));
  t.ok(limits.open(undefined));
  t.end();
});

void t.test('42. addresses: so many requests in a second, twice as many at once', (t) => {
  const limits = createAddressLimits(options);
  const refused = { kind: 'rateLimited', status: 429, retryAfterS: 1, message: /too often/ };
  for (let at = 0; at < 10; at++) limits.ask('10.0.0.1');
  t.throws(() => limits.ask('10.0.0.1'), refused);
  limits.ask('10.0.0.2');
  nowMs += 199;
  t.throws(() => limits.ask('10.0.0.1'), refused);
  nowMs += 1;
  limits.ask('10.0.0.1');
  t.throws(() => limits.ask('10.0.0.1'), refused);
  nowMs -= 10_000;
  t.throws(() => limits.ask('10.0.0.1'), refused, 'a clock that was set back');
  nowMs += 3_600_000;
  for (let at = 0; at < 10; at++) limits.ask('10.0.0.1');
  t.throws(() => limits.ask('10.0.0.1'), refused, 'a long time gives no more than that');
  t.end();
});

void t.test('addresses: without limits nothing is counted', (t) => {
  const limits = createAddressLimits({ ...options, maxConnections: null, requestsPerS: null });
  for (let at = 0; at < 1000; at++) {
    t.ok(limits.open('10.0.0.1'));
    limits.ask('10.0.0.1');
  }
  limits.close('10.0.0.1');
  t.end();
});
