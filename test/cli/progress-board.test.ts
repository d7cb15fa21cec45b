import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import type { WarmedImage } from '../../src/airgap/warm.ts';
import type { Io } from '../../src/cli/io.ts';
import { createBoard } from '../../src/cli/progress-board.ts';

const mib = 1024 * 1024;
const escape = '\u001B';
/** So many lines up, or all below away. */
const movement = new RegExp(String.raw`^${escape}\[(\d*)([AJ])$`);
const movements = new RegExp(String.raw`(\n|${escape}\[\d*[AJ])`);

/**
 * A terminal so many columns wide, as far as a board uses one: text, line ends, so many lines up, and all below away.
 * What does not fit goes on in the next line.
 */
function terminal(columns: number) {
  const lines: string[] = [''];
  let row = 0;
  let wraps = 0;
  const put = (text: string) => {
    for (const character of text) {
      if (lines[row]!.length >= columns) {
        wraps++;
        lines[++row] ??= '';
      }
      lines[row] += character;
    }
  };
  return {
    write(text: string) {
      for (const part of text.split(movements)) {
        const [, count = '', command] = movement.exec(part) ?? [];
        if (part === '\n') lines[++row] ??= '';
        else if (command === 'A') row = Math.max(0, row - Number(count || 1));
        else if (command === 'J') lines.splice(row, Infinity, '');
        else put(stripVTControlCharacters(part));
      }
    },
    /** What a person sees now. */
    seen: () => lines.filter((line) => line !== ''),
    wraps: () => wraps,
  };
}

function stage(isTerminal: boolean, columns: number | undefined, imageCount: number) {
  const screen = terminal(columns ?? 80);
  let printed = '';
  const out: string[] = [];
  const io: Io = {
    env: {},
    isTerminal,
    ...(columns !== undefined && { columns }),
    input: () => (async function* () {})(),
    write: () => Promise.resolve(),
    out: (text) => void out.push(text),
    err(text) {
      printed += text;
      screen.write(text);
    },
    onStop: () => undefined,
    onReload: () => undefined,
  };
  return { board: createBoard(io, imageCount), screen, out, printed: () => stripVTControlCharacters(printed) };
}

function report(image: string, over: Partial<WarmedImage> = {}): WarmedImage {
  return { image, status: 'complete', platforms: [], bytes: 5 * mib, fetchedBytes: 2 * mib, problems: [], ...over };
}

/** Two images that come, one of them not whole, and one that is here already. */
function run(board: ReturnType<typeof createBoard>, [one, two, three]: readonly [string, string, string]): void {
  board.planned(one, 5 * mib, 2 * mib);
  board.planned(two, 9 * mib, 9 * mib);
  for (let at = 0; at < 20; at++) board.received(one, mib / 10);
  board.received(two, mib);
  board.finished(report(one));
  board.say('docker.io limits the rate of requests. Waiting 10s.');
  board.planned(three, 3 * mib, 0);
  board.finished(report(three, { bytes: 3 * mib, fetchedBytes: 0 }));
  board.finished(report(two, { status: 'incomplete', problems: ['The download broke off.', 'And more.'] }));
  board.end();
}

const names = ['docker.io/library/one:1', 'docker.io/library/two:2', 'ghcr.io/org/three:3'] as const;

const sentences = [
  '✔ docker.io/library/one:1: 5.0 MiB, 2.0 MiB fetched',
  'docker.io limits the rate of requests. Waiting 10s.',
  '✔ ghcr.io/org/three:3: 3.0 MiB, nothing to fetch',
  '✘ docker.io/library/two:2: The download broke off.',
];

void t.test('board: at the end a person sees a line for each image, in the order of their ends, and no bars', (t) => {
  const { board, screen, out } = stage(true, 100, 3);
  run(board, names);
  t.same(screen.seen(), sentences);
  t.same(out, [], 'standard output is for what comes of it');
  t.end();
});

void t.test('board: meanwhile a bar for each image that is on its way, and what there is of all', (t) => {
  const { board, screen } = stage(true, 100, 3);
  board.planned(names[0], 5 * mib, 2 * mib);
  board.planned(names[1], 9 * mib, 8 * mib);
  board.received(names[0], mib);
  board.say('something happened');
  const [said, one, two, all, ...rest] = screen.seen();
  t.equal(said, 'something happened');
  t.match(one, /^docker\.io\/library\/one:1 +━{12}─{12} 1\.0 MiB of 2\.0 MiB$/);
  t.match(two, /^docker\.io\/library\/two:2 +─{24} 0 B of 8\.0 MiB$/);
  t.match(all, /^0 of 3 images, 1\.0 MiB of 10\.0 MiB, .+\/s, .+ left$/);
  t.same(rest, []);
  board.finished(report(names[0]));
  t.match(screen.seen(), ['something happened', sentences[0], /two:2/, /^1 of 3 images, 1\.0 MiB of 10\.0 MiB/]);
  t.equal(screen.seen().length, 4, 'the bar of what has ended is gone');
  board.end();
  t.same(screen.seen(), ['something happened', sentences[0]!]);
  t.end();
});

void t.test('board: without columns a terminal has eighty', (t) => {
  const { board, screen } = stage(true, undefined, 1);
  board.planned(names[0], 5 * mib, 2 * mib);
  board.say('now');
  t.ok(screen.seen().every((line) => line.length <= 80));
  t.equal(screen.wraps(), 0);
  t.end();
});

void t.test('board: however narrow, bars stay on their lines, and at the end nothing of them is left', (t) => {
  const long = `registry.example.com/a/very/long/path/to/an/image@sha256:${'0'.repeat(64)}`;
  for (const columns of [200, 120, 80, 60, 50, 40, 30, 20]) {
    const { board, screen } = stage(true, columns, 1000);
    board.planned(long, 1500 * mib, 1234 * mib);
    board.planned('a:1', mib, mib);
    board.received(long, 1023 * mib);
    board.say('-');
    t.equal(screen.wraps(), 0, `${columns} columns`);
    t.equal(screen.seen().length, 4, `${columns} columns`);
    board.say('-');
    board.end();
    t.same(screen.seen(), ['-', '-'], `${columns} columns`);
  }
  t.end();
});

void t.test('board: more bytes than were planned fill the bar and no more', (t) => {
  const { board, screen } = stage(true, 100, 1);
  board.planned('a:1', mib, mib);
  board.received('a:1', 3 * mib);
  board.received('nobody planned this:1', mib);
  board.say('-');
  t.match(screen.seen(), ['-', /^a:1 +━{24} 3\.0 MiB of 1\.0 MiB$/, /4\.0 MiB of 1\.0 MiB/]);
  board.finished(report('a:1'));
  board.end();
  t.equal(screen.seen().length, 2);
  t.end();
});

void t.test('board: elsewhere than on a terminal each event is one line, and nothing is drawn over', (t) => {
  const { board, printed } = stage(false, undefined, 3);
  run(board, names);
  const lines = printed().split('\n');
  t.equal(lines.pop(), '');
  t.same(
    lines.filter((line) => !line.includes('of it to fetch')),
    sentences,
  );
  t.same(
    lines.filter((line) => line.includes('of it to fetch')),
    [
      'docker.io/library/one:1: 5.0 MiB, 2.0 MiB of it to fetch',
      'docker.io/library/two:2: 9.0 MiB, 9.0 MiB of it to fetch',
      'ghcr.io/org/three:3: 3.0 MiB, 0 B of it to fetch',
    ],
  );
  t.end();
});

void t.test('board: elsewhere than on a terminal there are no movements of a cursor', (t) => {
  let raw = '';
  const io: Io = {
    env: {},
    isTerminal: false,
    columns: 80,
    input: () => (async function* () {})(),
    write: () => Promise.resolve(),
    out: () => undefined,
    err: (text) => void (raw += text),
    onStop: () => undefined,
    onReload: () => undefined,
  };
  run(createBoard(io, 3), names);
  t.equal(new RegExp(String.raw`${escape}\[\d*[A-HJK]|\r`).exec(raw), null);
  t.end();
});

void t.test('board: an image that failed without a reason says how it ended', (t) => {
  const { board, printed } = stage(false, undefined, 1);
  board.finished(report('a:1', { status: 'failed' }));
  t.equal(printed(), '✘ a:1: failed\n');
  t.end();
});
