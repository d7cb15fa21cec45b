import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** What can go wrong with a mirror, or be done to it. Titles of tests begin with the numbers of what they hold. */
const faults = `
 1 private content shown to others            2 a right taken back, the bytes still here  3 one tenant as another upstream
 4 a realm that steals credentials            5 credentials along a redirect              6 led to inside addresses
 7 layers that live elsewhere                 8 wrong bytes for a digest                  9 cut and torn bodies
10 an error behind half a blob               11 a thousand clients at once               12 slow and silent upstreams
13 clients that leave                        14 slow clients among fast ones             15 killed while writing
16 the order of fsync and rename             17 a full disk                              18 Redis dies while read from
19 Redis loses parts                         20 forged values in Redis                   21 a narrowed digest that is lost
22 a digest that is rewritten                23 another platform's answer                24 names in disguise
25 paths in names and digests                26 digests of several kinds                 27 documents that are two things
28 answers without end                       29 indexes in indexes                       30 upstreams in trouble
31 rate limits                               32 refusals of upstreams                     33 restarts
34 stops                                     35 hostile bundles                          36 secrets that get out
37 requests in requests                      38 answers that nobody asked for            39 headers in headers
40 coded bodies                              41 ranges                                   42 slow and idle connections
43 no descriptors left                       44 no memory left                           45 a loop that stands still
46 a herd at a tag                           47 a herd at a token                        48 a leader that dies
49 a leader that sleeps                      50 Redis fails over                         51 Redis is silent
52 Redis refuses                             53 keys without end                         54 S3 in trouble
55 rot on the disk                           56 evicted while read                       57 growth
58 pins that go                              59 "not found" that stays                   60 one upstream for another
61 a fallback that is less trusted           62 namespaces                               63 guessed passwords
64 forged tokens                             65 methods and rights                       66 decisions mixed up
67 addresses made up                         68 the admin listener                       69 certificates
70 proxies                                   71 lists without end                        72 texts that take for ever
73 names of the language                     74 signatures left behind                   75 a pinned digest and a narrowed tag
76 bundles there and back                    77 offline, and yet a packet                78 half warmed
79 mirrors in a ring                         80 configuration, bad and new               81 clocks that jump
82 disks that fail                           83 several processes, one folder            84 other versions' data
85 HTTP/2                                    86 odd requests                             87 one host, many spellings
88 empty and double things                   89 ten thousand idle connections            90 real clients
91 hours of all of it                        92 what we are built of
`;

/** What has no test here, and why. */
const without: Readonly<Record<number, string>> = {
  85: 'clients are spoken to in HTTP/1.1 alone, and so are upstreams: there are no streams to reset',
  91: 'takes as long as one likes: npm run soak -- --minutes 30',
};

/** The first of them are held by what everybody runs; what takes minutes or root may be in test/faults. */
const everyRun = 36;

const root = fileURLToPath(new URL('.', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const numbers = [...faults.matchAll(/(?<!\S)(\d+) (?=\S)/g)].map(([, number]) => Number(number));

function numbersIn(files: readonly string[]): Set<number> {
  const titles = files.flatMap((path) => [...read(path).matchAll(/\.test\(\s*['"`]((?:\d+, )*\d+)\. /g)]);
  return new Set(titles.flatMap(([, list = '']) => list.split(', ').map(Number)));
}

const tests = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.test.ts'));

void t.test('faults: each has a test that names it, or a reason', (t) => {
  t.same(
    numbers,
    Array.from({ length: 92 }, (_, at) => at + 1),
    'the list is whole',
  );
  const shown = numbersIn(tests);
  const always = numbersIn(tests.filter((path) => !path.startsWith('faults/')));
  for (const number of numbers) {
    t.not(shown.has(number), number in without, `${number} is shown, or has a reason`);
    if (number <= everyRun) t.ok(always.has(number), `${number} is shown in every run`);
  }
  t.same(
    [...shown].filter((number) => !numbers.includes(number)),
    [],
    'no title has a number of its own',
  );
  t.match(read('../package.json'), /"soak":/);
  t.end();
});

void t.test('92. all that is built in is of one exact version, with the hash of what it was', (t) => {
  const { dependencies, devDependencies } = JSON.parse(read('../package.json')) as Record<
    'dependencies' | 'devDependencies',
    Record<string, string>
  >;
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
    t.match(version, /^\d+\.\d+\.\d+$/, `${name} is a release, and no range`);
  }
  const { packages } = JSON.parse(read('../package-lock.json')) as {
    packages: Record<string, { integrity?: string; resolved?: string; hasInstallScript?: true }>;
  };
  const scripts: string[] = [];
  for (const [path, { integrity, resolved = '', hasInstallScript }] of Object.entries(packages)) {
    if (path === '') continue;
    t.match(integrity, /^sha512-/, path);
    t.notMatch(resolved, /^(?:git|http:|file:)/, `${path} comes from the registry`);
    if (hasInstallScript) scripts.push(path);
  }
  t.same(scripts, ['node_modules/node'], 'nothing else runs while it is installed');
  t.end();
});
