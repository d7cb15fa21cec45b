import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parse } from 'yaml';
import { errors } from '../src/errors.ts';
import { createMetrics } from '../src/metrics/metrics.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');

/** The rows of the table under a heading, by their cells. */
function rowsUnder(heading: string): string[][] {
  const [, section = ''] = readme.split(`\n## ${heading}\n`);
  const lines = section.split('\n## ')[0]!.split('\n');
  const rows = lines.filter((line) => line.startsWith('|')).slice(2);
  return rows.map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

const codesIn = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);

void t.test('README: the metrics are those that there are, with their labels', async (t) => {
  const metrics = createMetrics();
  const { text } = await metrics.render();
  const told = rowsUnder('See what goes on').flatMap(([names = '']) => codesIn(names));
  const own = [...text.matchAll(/^# TYPE (narrows_\S+)/gm)].map(([, name = '']) => name);
  t.same(told.toSorted(), own.toSorted());
});

void t.test('README: the errors are those of the table in the code', (t) => {
  const told = new Set(
    rowsUnder('Errors').flatMap(([statuses = '', codes = '']) =>
      statuses.split(', ').flatMap((status) => codesIn(codes).map((code) => `${status} ${code}`)),
    ),
  );
  for (const { status, code } of Object.values(errors)) t.ok(told.has(`${status} ${code}`), `${status} ${code}`);
  const statuses = new Set<number>(Object.values(errors).map(({ status }) => status));
  for (const row of rowsUnder('Errors')) {
    for (const status of row[0]!.split(', ')) t.ok(statuses.has(Number(status)), status);
  }
  const known = new Set<string>(Object.values(errors).map(({ code }) => code));
  for (const [, codes = ''] of rowsUnder('Errors')) for (const code of codesIn(codes)) t.ok(known.has(code), code);
  t.end();
});

void t.test('README: the headers are those that the code reads and writes', (t) => {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts'),
  );
  const code = sources.map((path) => readFileSync(join(root, 'src', path), 'utf8')).join('\n');
  const told = rowsUnder('Headers').flatMap(([names = '']) => codesIn(names).map((name) => name.toLowerCase()));
  for (const name of told)
    t.ok(code.includes(`'${name}'`) || code.includes(`${name}:`) || code.includes(`{ ${name} }`), name);
  const own = new Set([...code.matchAll(/'(narrows-[a-z]+)'/g)].map(([, name = '']) => name));
  for (const name of own) t.ok(told.includes(name), `${name} is told of`);
  t.end();
});

void t.test('README: keys of the configuration that it names are keys that there are', (t) => {
  type Tree = Record<string, unknown>;
  const defaults = parse(readFileSync(join(root, 'config/default.yaml'), 'utf8')) as Tree;
  const sections = Object.keys(defaults).filter((key) => !['listen', 'upstreams', 'repositories'].includes(key));
  const named = [...readme.matchAll(/`([a-z]+(?:\.[a-zA-Z0-9]+)+)`/g)].map(([, path = '']) => path.split('.'));
  const paths = named.filter(([first = '']) => sections.includes(first));
  t.ok(paths.length > 20, `${paths.length} keys`);
  for (const path of paths) {
    let at: unknown = defaults;
    for (const key of path) at = (at as Tree | undefined)?.[key];
    t.not(at, undefined, path.join('.'));
  }
  t.end();
});
