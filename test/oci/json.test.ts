import t from 'tap';
import { asObject, parseJson } from '../../src/oci/json.ts';

const parse = (text: string) => parseJson(Buffer.from(text));

void t.test('parseJson: reads what JSON.parse reads', (t) => {
  const texts = [
    'null',
    'true',
    '-12.5',
    '"a \\" b \\\\"',
    '[]',
    '{}',
    ' {"a" : {"a": [{"a": 1}, {"a": 2}, "a", "a"]}, "b": "a"} \n',
    '{"key \\"a\\": ": 1, "\\\\": 2, "{": "}", "[": "]"}',
    '{"a":["b","b"],"b":{"a":"a:"}}',
    '{"größe":"✓","😀":null}',
  ];
  for (const text of texts) t.same(parse(text), JSON.parse(text), text);
  t.end();
});

void t.test('27. parseJson: what two readers could understand differently is refused', (t) => {
  const texts: Record<string, string> = {
    'a key twice': '{"a":1,"a":2}',
    'a key twice, once escaped': '{"a":1,"\\u0061":2}',
    'a key twice with space between': '{"a" \n\t\r : 1, "b": 1, "a":1}',
    'a key twice, deep': '[{"x":{"y":[{"manifests":[],"manifests":[1]}]}}]',
    'a key twice, far apart': '{"a":{"b":1},"c":[{"a":1}],"a":{}}',
    'the empty key twice': '{"":1,"":2}',
    '__proto__ twice': '{"__proto__":1,"__proto__":2}',
    'a byte order mark': '\u{FEFF}{}',
    nothing: '',
    'two values': '{} {}',
    'a comma too many': '{"a":1,}',
    'a comment': '{/* a */}',
    'single quotes': "{'a':1}",
    'a string without end': '{"a":"b',
    'an escape without end': '"\\',
    'a brace too few': '{"a":{}',
    'a brace too many': '{}}',
    'mixed brackets': '{"a":[}]',
    NaN: '{"a":NaN}',
    'a captive portal': '<!doctype html><title>Log in</title>',
  };
  for (const [what, text] of Object.entries(texts)) t.throws(() => parse(text), SyntaxError, what);
  t.end();
});

void t.test('parseJson: a key in two objects, or as a value, is not a key twice', (t) => {
  t.same(parse('[{"a":1},{"a":2}]'), [{ a: 1 }, { a: 2 }]);
  t.same(parse('{"a":{"a":{"a":1}}}'), { a: { a: { a: 1 } } });
  t.same(parse('{"a":"a","b":["a","a"]}'), { a: 'a', b: ['a', 'a'] });
  t.end();
});

void t.test('parseJson: bytes that are no UTF-8 are refused, with the reason', (t) => {
  const cases: Record<string, number[]> = {
    'a lone byte': [0x22, 0xff, 0x22],
    'an overlong slash': [0x22, 0xc0, 0xaf, 0x22],
    'a surrogate': [0x22, 0xed, 0xa0, 0x80, 0x22],
    'a character cut short': [0x22, 0xe2, 0x82, 0x22],
  };
  for (const [what, bytes] of Object.entries(cases))
    t.throws(() => parseJson(Uint8Array.from(bytes)), SyntaxError, what);
  t.throws(() => parseJson(Buffer.from('{}', 'utf16le')), SyntaxError, 'UTF-16');
  t.end();
});

void t.test('72. parseJson: nests 64 levels and no more, whatever it is nested in', (t) => {
  t.ok(parse('['.repeat(64) + ']'.repeat(64)));
  t.ok(parse(`${'{"a":'.repeat(63)}{}${'}'.repeat(63)}`));
  t.throws(() => parse('['.repeat(65) + ']'.repeat(65)), SyntaxError);
  t.throws(() => parse(`${'{"a":'.repeat(64)}{}${'}'.repeat(64)}`), SyntaxError);
  t.throws(() => parse('['.repeat(1_000_000)), SyntaxError);
  t.same(parse(`"${'['.repeat(1000)}"`), '['.repeat(1000), 'brackets in a text are text');
  t.end();
});

void t.test('parseJson: a number that a double cannot hold is written again as it was', (t) => {
  const texts = [
    '{"a":12345678901234567890}',
    '{"a":1.0,"b":-0,"c":1e3,"d":1E400}',
    '[0.1000000000000000055511151231257827,5]',
    '{"n":9007199254740993}',
    '{"plain":42,"negative":-1,"fraction":0.5}',
  ];
  for (const text of texts) t.equal(JSON.stringify(parse(text)), text);
  t.equal(asObject(parse('{"a":42}'))?.['a'], 42, 'a plain number is a number');
  t.end();
});

void t.test('27. parseJson: __proto__ is a key like any other', (t) => {
  const text = '{"__proto__":{"os":"linux"},"constructor":1}';
  const value = asObject(parse(text))!;
  t.same(Object.keys(value), ['__proto__', 'constructor']);
  t.equal(Object.getPrototypeOf(value), Object.prototype);
  t.equal(JSON.stringify(value), text);
  t.end();
});

void t.test('asObject: lets objects through and nothing else', (t) => {
  const object = { a: 1 };
  t.equal(asObject(object), object);
  for (const value of [undefined, null, true, 0, '', 'text', [], [object]]) t.equal(asObject(value), undefined);
  t.end();
});
