import t from 'tap';
import { parseChallenges } from '../../src/upstream/challenge.ts';

type Told = [scheme: string, parameters: Record<string, string>][];

const told = (header: string): Told =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

const hub: Told = [
  [
    'bearer',
    {
      realm: 'https://auth.docker.io/token',
      service: 'registry.docker.io',
      scope: 'repository:library/nginx:pull',
    },
  ],
];

void t.test('parseChallenges: reads what registries send', (t) => {
  const cases: Record<string, [header: string, expected: Told]> = {
    'Docker Hub': [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"',
      hub,
    ],
    'a comma in the scope': [
      'Bearer realm="https://r.example/token",scope="repository:a/b:pull,push repository:c:pull"',
      [['bearer', { realm: 'https://r.example/token', scope: 'repository:a/b:pull,push repository:c:pull' }]],
    ],
    'no service': [
      'Bearer realm="https://public.ecr.aws/token/"',
      [['bearer', { realm: 'https://public.ecr.aws/token/' }]],
    ],
    'a query in the realm': [
      'Bearer realm="https://r.example/token?a=b,c&d=e"',
      [['bearer', { realm: 'https://r.example/token?a=b,c&d=e' }]],
    ],
    'an error beside it': [
      'Bearer realm="https://r.example/token",service="r",error="invalid_token"',
      [['bearer', { realm: 'https://r.example/token', service: 'r', error: 'invalid_token' }]],
    ],
    'Basic with a space in its realm': ['Basic realm="Registry Realm"', [['basic', { realm: 'Registry Realm' }]]],
    'a scheme alone': ['Negotiate', [['negotiate', {}]]],
  };
  for (const [what, [header, expected]] of Object.entries(cases)) t.same(told(header), expected, what);
  t.end();
});

void t.test('parseChallenges: several challenges may stand in one header', (t) => {
  const cases: [header: string, expected: Told][] = [
    [
      'Basic realm="a", Bearer realm="b",service="c"',
      [
        ['basic', { realm: 'a' }],
        ['bearer', { realm: 'b', service: 'c' }],
      ],
    ],
    [
      'Bearer realm="b", Basic realm="a"',
      [
        ['bearer', { realm: 'b' }],
        ['basic', { realm: 'a' }],
      ],
    ],
    [
      'Negotiate, Basic realm="a, Bearer realm=\\"x\\""',
      [
        ['negotiate', {}],
        ['basic', { realm: 'a, Bearer realm="x"' }],
      ],
    ],
    [
      'Bearer scope="a", Bearer scope="b"',
      [
        ['bearer', { scope: 'a' }],
        ['bearer', { scope: 'b' }],
      ],
    ],
  ];
  for (const [header, expected] of cases) t.same(told(header), expected, header);
  t.end();
});

void t.test('parseChallenges: spaces, case and quotes make no difference', (t) => {
  const spellings = [
    'BEARER REALM="https://auth.docker.io/token",Service="registry.docker.io",SCOPE="repository:library/nginx:pull"',
    'bearer  realm = "https://auth.docker.io/token" ,\tservice=registry.docker.io , scope="repository:library/nginx:pull" ',
    ' ,, Bearer realm="https://auth.docker.io/token",,service="registry.docker.io",scope="repository:library/nginx:pull",',
    'Bearer realm="https:\\/\\/auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"',
  ];
  for (const header of spellings) t.same(told(header), hub, header);
  t.end();
});

void t.test('parseChallenges: keeps what it understood before what it does not', (t) => {
  const cases: [header: string, expected: Told][] = [
    ['', []],
    ['  ', []],
    [',,,', []],
    ['"Bearer"', []],
    ['Bearer realm="no end', [['bearer', {}]]],
    ['Bearer realm="a",service="no end', [['bearer', { realm: 'a' }]]],
    ['Bearer realm=', [['bearer', {}]]],
    ['Bearer realm="a" (comment)', [['bearer', { realm: 'a' }]]],
    ['realm="https://evil.example"', []],
    ['Bearer realm=""', [['bearer', { realm: '' }]]],
  ];
  for (const [header, expected] of cases) t.same(told(header), expected, header);
  t.end();
});

void t.test('73. parseChallenges: names that every JavaScript object has are names like others', (t) => {
  const [challenge] = parseChallenges('Bearer __proto__="a",constructor="b"');
  t.same(
    [...challenge!.parameters],
    [
      ['__proto__', 'a'],
      ['constructor', 'b'],
    ],
  );
  t.equal(challenge!.parameters.get('realm'), undefined);
  t.end();
});

void t.test('72. parseChallenges: a long header is read in time that grows with its length', (t) => {
  const hostile = [
    `Bearer realm="${'\\'.repeat(200_000)}`,
    `Bearer realm="${'a'.repeat(200_000)}`,
    'Bearer '.repeat(30_000),
    `Bearer ${' '.repeat(200_000)}!`,
    `Bearer ${','.repeat(200_000)}`,
    `Bearer ${'a="b",'.repeat(30_000)}`,
  ];
  const started = process.cpuUsage();
  const found = hostile.map((header) => parseChallenges(header).length);
  t.same(found, [1, 1, 30_000, 2, 1, 1]);
  t.ok(process.cpuUsage(started).user < 1_000_000, 'less than a second for a megabyte');
  t.end();
});
