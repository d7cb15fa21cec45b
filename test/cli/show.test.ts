import { Readable } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import { formatBytes, formatCount, formatTable, showProgress } from '../../src/cli/show.ts';
import { until } from '../fixtures/downloads.ts';

void t.test('show: bytes with one digit after the point, in the unit that keeps them short', (t) => {
  for (const [bytes, text] of [
    [0, '0 B'],
    [1, '1 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [1024 ** 2 - 1, '1.0 MiB'],
    [1024 ** 2, '1.0 MiB'],
    [3.25 * 1024 ** 2, '3.3 MiB'],
    [1024 ** 3 - 1, '1.0 GiB'],
    [100 * 1024 ** 3, '100.0 GiB'],
    [1024 ** 4, '1.0 TiB'],
    [5000 * 1024 ** 4, '5000.0 TiB'],
    // What a speed comes to.
    [12.3456, '12 B'],
  ] as const) {
    t.equal(formatBytes(bytes), text);
  }
  t.end();
});

void t.test('show: one is one, all else is many', (t) => {
  t.equal(formatCount(0, 'blob'), '0 blobs');
  t.equal(formatCount(1, 'blob'), '1 blob');
  t.equal(formatCount(2, 'wrong blob'), '2 wrong blobs');
  t.end();
});

void t.test('show: columns are as wide as what is in them, and numbers stand right', (t) => {
  const rows = [
    ['linux/amd64', 'present', '3.2 MiB', '12', 'sha256:abc'],
    ['linux/arm/v7', 'absent', '-', '1', 'sha256:d'],
    ['windows(10.0.20348.1)/amd64', 'not offered', '-', '0', ''],
  ];
  t.equal(
    formatTable(['PLATFORM', 'HERE', 'SIZE', 'MISSING', 'DIGEST'], rows),
    [
      'PLATFORM                     HERE            SIZE  MISSING  DIGEST',
      'linux/amd64                  present      3.2 MiB       12  sha256:abc',
      'linux/arm/v7                 absent             -        1  sha256:d',
      'windows(10.0.20348.1)/amd64  not offered        -        0',
      '',
    ].join('\n'),
  );
  t.equal(formatTable(['ONE', 'OTHER'], []), 'ONE  OTHER\n', 'a head alone');
  t.equal(
    formatTable(['COUNT'], [['7'], ['seven']]),
    'COUNT\n    7\nseven\n',
    'a head stands right over numbers alone',
  );
  t.end();
});

void t.test('show: what an upstream calls its platforms does not steer a terminal, nor look like a line', (t) => {
  const table = formatTable(['PLATFORM'], [['li\u001B[2Jnux/amd\n64'], ['\u009Bx\u007F\r']]);
  t.equal(table, 'PLATFORM\nli\\u001b[2Jnux/amd\\n64\n\\u009bx\\u007f\\r\n');
  t.end();
});

/** What is printed, and a terminal's share of it as a person sees it at the end. */
function prepare(isTerminal: boolean) {
  const printed: string[] = [];
  const io = {
    env: {},
    isTerminal,
    input: () => Readable.from([]),
    write: () => Promise.resolve(),
    out: () => {
      throw new Error('what is printed is for what was asked for');
    },
    err: (text: string) => void printed.push(text),
    onStop: () => undefined,
    onReload: () => undefined,
  };
  return { io, printed, seen: () => printed.map((text) => stripVTControlCharacters(text).replace('\r', '')) };
}

async function passMs(ms: number): Promise<void> {
  const started = performance.now();
  await until(() => performance.now() - started > ms, 'the time');
}

void t.test('show: on a terminal a bar is drawn over itself, a few times a second, and taken away', async (t) => {
  const { io, printed, seen } = prepare(true);
  const progress = showProgress(io, 'verifying', 4096);
  t.same(printed, [], 'nothing before there is something to tell');
  await passMs(20);
  for (let at = 0; at < 1024; at++) progress.add(1);
  t.equal(printed.length, 1);
  await passMs(120);
  progress.add(1024);
  t.equal(printed.length, 2);
  t.match(seen()[0], /^verifying ━{30} 1 B of 4\.0 KiB, \d+ B\/s, \d+s left$/);
  t.match(seen()[1], /^verifying ━{30} 2\.0 KiB of 4\.0 KiB, [\d.]+ (?:Ki)?B\/s, \d+s left$/);
  t.ok(printed.every((text) => text.startsWith('\r\u001B[K') && !text.includes('\n')));
  progress.end();
  t.equal(printed[2], '\r\u001B[K');
});

void t.test('show: a bar that is past its end, or has none, says so sanely', async (t) => {
  for (const total of [10, 0]) {
    const { io, seen } = prepare(true);
    const progress = showProgress(io, 'removing', total);
    await passMs(5);
    progress.add(5000);
    t.match(seen()[0], new RegExp(`^removing ━{30} 4\\.9 KiB of ${total} B, [\\d.]+ [KM]iB/s, 0s left$`));
  }
});

void t.test('show: nothing is drawn where nobody looks, nor where nothing was done', async (t) => {
  const pipe = prepare(false);
  const piped = showProgress(pipe.io, 'verifying', 10);
  for (let times = 0; times < 3; times++) {
    piped.add(5);
    await passMs(110);
  }
  piped.end();
  t.same(pipe.printed, []);
  const idle = prepare(true);
  showProgress(idle.io, 'verifying', 0).end();
  t.same(idle.printed, []);
});
