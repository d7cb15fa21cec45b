import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const demo = fileURLToPath(new URL('../demo/main.ts', import.meta.url));

void t.test('demo: the first thing that people type works, and shows what narrows is for', (t) => {
  const env = { PATH: process.env['PATH'] ?? '' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [demo, '--once'], { env, encoding: 'utf8' });
  t.equal(stderr, '');
  t.equal(status, 0, stdout);
  t.equal(stdout.split('every digest right').length - 1, 3, 'three pulls');
  const rows = [...stdout.matchAll(/^ *(linux\/\w+) +\w+ \(image\) +6\.0 MiB +(\d+) +(\S+ \w+)$/gm)];
  t.same(
    rows.map(([, platform, asked, sent]) => [platform, asked, sent]),
    [
      ['linux/arm64', '5', '6.0 MiB'],
      ['linux/amd64', '3', '6.0 MiB'],
      ['linux/arm64', '0', '0 B'],
    ],
  );
  t.match(stdout, /narrows, 2 platforms .* 12\.0 MiB/);
  t.match(stdout, /a mirror of all 5 platforms .* 30\.0 MiB/);
  t.end();
});
