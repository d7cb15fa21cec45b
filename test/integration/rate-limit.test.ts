import t from 'tap';
import { Agent } from 'undici';
import { until } from '../fixtures/downloads.ts';
import { buildImage } from '../fixtures/images.ts';
import { containerdAccept as accept, fetchAnswer, startTestMirror } from '../fixtures/mirror.ts';
import { refuse, startRegistry } from '../fixtures/registry.ts';

const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'limited' });

t.setTimeout(120_000);

void t.test(
  '31. a minute of 429 under load: what is known is given, what is not is told to wait, and so are we',
  async (t) => {
    const clock = { ms: Date.parse('2026-01-01') };
    const registry = await startRegistry();
    t.teardown(() => registry.close());
    const repositories = Array.from({ length: 20 }, (_, at) => `team/r${at}`);
    for (const name of repositories) registry.putImage(name, '1', image);
    const mirror = await startTestMirror(t, { upstreams: { up: registry.url }, now: () => clock.ms });
    const agent = new Agent();
    t.teardown(() => agent.destroy());
    const metrics = async () =>
      (await fetchAnswer(`${mirror.adminUrl}/metrics`, { method: 'GET', dispatcher: agent })).body.toString();
    const known = (name: string) => mirror.get(`/p/linux-arm64/v2/up/${name}/manifests/1`, { accept });
    const layers = image.children[1]!.layers;
    for (const name of repositories) {
      t.equal((await known(name)).status, 200);
      await mirror.get(`/v2/up/${name}/blobs/${layers[0]!.digest}`);
    }
    clock.ms += 61_000;
    registry.forget();
    registry.script = (_seen, response) => {
      refuse(response, 429, 'TOOMANYREQUESTS', {
        'retry-after': '10',
        'ratelimit-limit': '100;w=21600',
        'ratelimit-remaining': '0;w=21600',
      });
      return true;
    };
    const answers = { stale: 0, waits: new Set<number>(), wrong: [] as unknown[] };
    for (let second = 0; second < 60; second++, clock.ms += 1000) {
      const all = await Promise.all([
        ...repositories.map(async (name) => ({ kind: 'known', answer: await known(name) })),
        ...repositories.map(async (name) => ({
          kind: 'blob',
          answer: await mirror.get(`/v2/up/${name}/blobs/${layers[0]!.digest}`),
        })),
        ...repositories.map(async (name, at) => ({
          kind: 'unknown',
          answer: await mirror.get(`/v2/up/${name}/manifests/new-${second}-${at}`),
        })),
      ]);
      for (const { kind, answer } of all) {
        const { status, headers } = answer;
        if (kind === 'known' && status === 200 && headers['narrows-cache'] === 'stale') answers.stale++;
        else if (kind === 'unknown' && status === 429) answers.waits.add(Number(headers['retry-after']));
        else if (kind !== 'blob' || status !== 200) answers.wrong.push([kind, status, headers['narrows-cache']]);
      }
    }
    t.same(answers.wrong.slice(0, 5), []);
    t.equal(answers.stale, 60 * repositories.length);
    t.ok(
      [...answers.waits].every((wait) => wait >= 1 && wait <= 11),
      [...answers.waits].join(),
    );
    t.comment(
      `${registry.seen.length} requests reached the upstream in the minute, of ${60 * 3 * repositories.length}`,
    );
    t.ok(registry.seen.length >= 5 && registry.seen.length <= 8, `${registry.seen.length} requests`);
    const text = await metrics();
    t.match(text, /^narrows_upstream_budget_remaining\{upstream="up"\} 0$/m);
    t.match(text, /^narrows_upstream_budget_limit\{upstream="up"\} 100$/m);
    t.match(text, /^narrows_upstream_backoff_seconds\{upstream="up"\} [1-9]/m);
    registry.script = undefined;
    clock.ms += 12_000;
    const stateOf = async () => (await mirror.get('/v2/up/team/r1/manifests/1', { accept })).headers['narrows-cache'];
    await until(async () => (await stateOf()) !== 'stale', 'the end of it');
    clock.ms += 61_000;
    t.equal(await stateOf(), 'revalidated');
  },
);
