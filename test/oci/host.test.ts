import t from 'tap';
import { canonicalHost, canonicalName } from '../../src/oci/host.ts';

void t.test('87. host: one form for each, however it is written', (t) => {
  const expected: [text: string, host: string | undefined, port?: string][] = [
    ['arm.example', 'arm.example'],
    ['ARM.Example.', 'arm.example'],
    ['arm.example.:5000', 'arm.example', ':5000'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['XN--bcher-kva.example', 'xn--bcher-kva.example'],
    ['[FE80:0::1]', '[fe80::1]'],
    ['[fe80::1%25eth0]:80', '[fe80::1]', ':80'],
    ['10.0.0.1:5000', '10.0.0.1', ':5000'],
    ['localhost', 'localhost'],
    ['', undefined],
    ['a..', undefined],
    ['a@b', undefined],
    ['a/b', undefined],
    ['a:b', undefined],
    ['a:1:2', undefined],
    ['[', undefined],
    ['[x]', undefined],
    ['a b', undefined],
  ];
  for (const [text, host, port = ''] of expected) {
    t.same(canonicalHost(text), host === undefined ? undefined : { host, port }, text);
  }
  t.end();
});

void t.test('host: as text again; what is none stays as it is', (t) => {
  t.equal(canonicalName('LAB.example.:5000'), 'lab.example:5000');
  t.equal(canonicalName('https://x'), 'https://x');
  for (const text of ['LAB.example.:5000', 'bücher.example', '[FE80:0::1]:1']) {
    t.equal(canonicalName(canonicalName(text)), canonicalName(text), 'once is enough');
  }
  t.end();
});
