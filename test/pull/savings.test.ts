import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { createSavings } from '../../src/pull/savings.ts';

const [index, a, b, c, other] = ['index', 'a', 'b', 'c', 'other'].map((text) => digestOf(Buffer.from(text)));

function start() {
  let spared = 0;
  const savings = createSavings((bytes) => (spared += bytes));
  return { savings, spared: () => spared };
}

void t.test('savings: platforms that nobody asked for count like the mean of those that were', (t) => {
  const { savings, spared } = start();
  savings.narrowed('up/x', index!, [a!, b!, c!]);
  t.equal(spared(), 0, 'before anything is known of its sizes');
  savings.fetched('up/x', a!, 100);
  t.equal(spared(), 200);
  savings.fetched('up/x', a!, 100);
  t.equal(spared(), 200, 'each once');
  savings.fetched('up/x', b!, 200);
  t.equal(spared(), 150, 'what is asked for after all was not spared');
  savings.fetched('up/x', c!, 50);
  t.equal(spared(), 0);
  t.end();
});

void t.test('savings: what is no platform of a narrowed index spares nothing', (t) => {
  const { savings, spared } = start();
  savings.narrowed('up/x', index!, [a!, b!]);
  savings.fetched('up/x', other!, 100);
  savings.fetched('up/y', a!, 100);
  t.equal(spared(), 0);
  savings.narrowed('up/x', index!, [a!, b!]);
  savings.fetched('up/x', a!, 100);
  t.equal(spared(), 100, 'narrowed twice is the same index');
  t.end();
});
