import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import { createLog } from '../src/log.ts';
import type { Log } from '../src/log.ts';
import { NarrowsError } from '../src/errors.ts';

interface Line {
  [key: string]: unknown;
}

/** What a log writes: text as it went out, and each line as JSON. */
function recorded(level: string, isTerminal: boolean): { log: Log; lines: string[]; json: () => Line[] } {
  const lines: string[] = [];
  const log = createLog(level, { isTerminal, write: (text) => lines.push(text) });
  return { log, lines, json: () => lines.map((line) => JSON.parse(line) as Line) };
}

void t.test('createLog: writes a line of JSON for each entry, with a time, a level in words and no more', (t) => {
  const { log, lines, json } = recorded('info', false);
  log.info({ port: 5000 }, 'listening');
  log.warn('two\nlines');
  t.equal(lines.length, 2);
  for (const line of lines) t.match(line, /^\{[^\n]*\}\n$/);
  const [first, second] = json();
  t.match(first?.['time'], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.same({ ...first, time: undefined }, { level: 'info', time: undefined, port: 5000, msg: 'listening' });
  t.same({ ...second, time: undefined }, { level: 'warn', time: undefined, msg: 'two\nlines' });
  t.end();
});

void t.test('createLog: writes what is at least as grave as its level', (t) => {
  const levels = ['trace', 'debug', 'info', 'warn', 'error'] as const;
  for (const [at, level] of levels.entries()) {
    const { log, json } = recorded(level, false);
    for (const one of levels) log[one]('x');
    t.same(
      json().map((line) => line['level']),
      levels.slice(at),
      level,
    );
  }
  const { log, lines } = recorded('silent', false);
  for (const one of levels) log[one]('x');
  t.same(lines, [], 'silent');
  t.end();
});

void t.test('createLog: an error is its message and those of its causes, never its other fields', (t) => {
  const secret = Object.assign(new Error('connection refused'), { headers: { authorization: 'Basic hunter2' } });
  const error = new NarrowsError('upstreamUnavailable', 'docker.io does not answer.', {
    cause: secret,
    detail: 'hunter2',
    headers: { cookie: 'hunter2' },
  });
  const { log, lines, json } = recorded('info', false);
  log.error({ err: error }, 'pull failed');
  log.error(error);
  log.error({ err: 'a text' }, 'x');
  log.error({ err: new TypeError() }, 'x');
  t.same(
    json().map((line) => line['err']),
    [
      'docker.io does not answer: connection refused',
      'docker.io does not answer: connection refused',
      'a text',
      'TypeError',
    ],
  );
  t.notMatch(lines.join(''), 'hunter2');
  t.notMatch(lines.join(''), 'log.test.ts', 'and no stack');
  t.end();
});

void t.test('createLog: causes that never end are cut', (t) => {
  const error = new Error('again');
  error.cause = error;
  const { log, json } = recorded('info', false);
  log.error({ err: error }, 'x');
  t.equal(json()[0]?.['err'], 'again: again: again: again: again');
  t.end();
});

void t.test('createLog: a terminal gets a line for people', (t) => {
  const { log, lines } = recorded('debug', true);
  log.info({ port: 5000, err: new Error('refused') }, 'listening');
  log.debug('a word');
  const [first = '', second = ''] = lines.map(stripVTControlCharacters);
  t.match(first, /^\d\d:\d\d:\d\d info  listening port=5000 err=refused\n$/);
  t.match(second, /^\d\d:\d\d:\d\d debug a word\n$/);
  t.end();
});

void t.test('36. createLog: what clients and upstreams wrote cannot steer a terminal, nor forge a line', (t) => {
  const { log, lines } = recorded('info', true);
  log.info({ url: '/v2/\u001B[2J\u001B]0;owned\u0007' }, 'asked\r\n12:00:00 info  forged');
  const text = lines.join('');
  t.equal(lines.length, 1);
  t.equal(text.split(/[\r\n]+/).filter(Boolean).length, 1, 'one line');
  t.notMatch(text, '\u001B[2J');
  t.notMatch(text, '\u001B]0;');
  t.notMatch(text, '\u0007');
  t.end();
});

void t.test('createLog: a structure is told to people as well', (t) => {
  const { log, lines } = recorded('info', true);
  log.info({ platforms: ['linux/arm64', 'linux/amd64'], at: { tier: 'disk' } }, 'kept');
  const line = stripVTControlCharacters(lines.join(''));
  t.match(line, 'linux/arm64');
  t.match(line, 'disk');
  t.end();
});

void t.test('createLog: the access log is told to people as what was answered to what', (t) => {
  const { log, lines } = recorded('info', true);
  const request = { status: 200, id: 'an-id', method: 'GET', url: '/v2/', ms: 3, client: '::1', isWhole: true };
  log.info({ ...request, view: 'image' }, 'request');
  log.warn({ ...request, isWhole: false }, 'request broken off');
  const [first = '', second = ''] = lines.map(stripVTControlCharacters);
  t.match(first, /info {2}200 GET \/v2\/ 3ms client=::1 view=image\n$/);
  t.match(second, /warn {2}200 GET \/v2\/ 3ms request broken off client=::1 isWhole=false\n$/);
  t.end();
});
