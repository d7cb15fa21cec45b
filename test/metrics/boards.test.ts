import { readFileSync } from 'node:fs';
import t from 'tap';
import { parse } from 'yaml';
import { createMetrics } from '../../src/metrics/metrics.ts';

const read = (name: string) => readFileSync(new URL(`../../config/${name}`, import.meta.url), 'utf8');

/** Every series that the text of the metrics could have: a histogram has three. */
async function series(): Promise<Set<string>> {
  const { text } = await createMetrics().render();
  const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
  return new Set(
    types.flatMap(([, name = '', type]) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
}

const namesIn = (text: string) => [...text.matchAll(/\b(?:narrows|nodejs|process)_[a-z0-9_]+/g)].map(([name]) => name);

interface Panel {
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets: readonly { readonly expr: string }[];
}

void t.test('the Grafana dashboard asks for metrics that there are, and shows all of ours', async (t) => {
  const board = JSON.parse(read('grafana-dashboard.json')) as { panels: Panel[] };
  const known = await series();
  const asked = new Set(board.panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => namesIn(expr))));
  for (const name of asked) t.ok(known.has(name), name);
  const own = [...known].filter((name) => name.startsWith('narrows_') && !/_(?:sum|count)$/.test(name));
  for (const name of own) t.ok(asked.has(name), `${name} is shown`);
  const taken = new Set<string>();
  for (const { title, gridPos } of board.panels) {
    const { x, y, w, h } = gridPos;
    t.ok(x + w <= 24, title);
    for (let at = 0; at < w * h; at++) {
      const cell = `${x + (at % w)} ${y + Math.floor(at / w)}`;
      t.notOk(taken.has(cell), `${title} lies over another panel at ${cell}`);
      taken.add(cell);
    }
  }
});

void t.test('the alerts ask for metrics that there are, and say what to do', async (t) => {
  const { groups } = parse(read('alerts.yaml')) as {
    groups: {
      name: string;
      rules: { alert: string; expr: string; labels: { severity: string }; annotations: Record<string, string> }[];
    }[];
  };
  const known = await series();
  const rules = groups.flatMap((group) => group.rules);
  t.ok(rules.length >= 10);
  t.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length);
  for (const { alert, expr, labels, annotations } of rules) {
    for (const name of namesIn(expr)) t.ok(known.has(name), `${alert}: ${name}`);
    t.match(labels.severity, /^(?:critical|warning|info)$/, alert);
    t.match(annotations, { summary: /\.$/, action: /\.$/ }, alert);
  }
});
