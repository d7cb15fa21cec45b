import t from 'tap';
import { digestOf } from '../../src/oci/digest.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import { closedPort } from '../fixtures/servers.ts';
import { blobOf, startRegistry } from '../fixtures/registry.ts';

const digest = digestOf(Buffer.from('nowhere'));
const paths = ['manifests/1', `manifests/${digest}`, `blobs/${digest}`, 'tags/list', `referrers/${digest}`];

void t.test('79. a mirror that is its own upstream says so, at once', async (t) => {
  const port = await closedPort();
  const mirror = await startTestMirror(t, {
    upstreams: { up: `http://127.0.0.1:${port}` },
    config: { listen: [{ address: `127.0.0.1:${port}` }] },
  });
  for (const path of paths) {
    const answer = await mirror.get(`/v2/up/a/b/${path}`);
    t.equal(answer.status, 508, path);
    t.match(answer.json(), { errors: [{ code: 'UNAVAILABLE', message: /loop|own upstream/ }] });
  }
});

void t.test(
  '79. mirrors in a ring: whatever is asked of any of them, none waits for itself; asked at once, none waits for ever',
  async (t) => {
    const ports = [await closedPort(), await closedPort(), await closedPort()];
    const mirrors = [];
    for (const [at, port] of ports.entries()) {
      mirrors.push(
        await startTestMirror(t, {
          upstreams: { up: `http://127.0.0.1:${ports[(at + 1) % ports.length]}` },
          config: { listen: [{ address: `127.0.0.1:${port}` }], limits: { upstreamHeaders: '1s' } },
        }),
      );
    }
    for (const path of paths) {
      for (const mirror of mirrors) t.equal((await mirror.get(`/v2/a/b/${path}`)).status, 508, path);
      // Each joins the question that it has under way already: then time is what ends it.
      const answers = await Promise.all(mirrors.map((mirror) => mirror.get(`/v2/a/c/${path}`)));
      for (const { status } of answers) t.ok(status === 508 || status === 504, `${path}: ${status}`);
    }
  },
);

void t.test(
  'a chain of mirrors is no loop: the registry sees whom it came through, others who asked are not told',
  async (t) => {
    const registry = await startRegistry();
    t.teardown(() => registry.close());
    const blob = blobOf(Buffer.from('content'));
    registry.put('a/b', blob);
    const hub = await startTestMirror(t, { upstreams: { up: registry.url } });
    const edge = await startTestMirror(t, { upstreams: { up: hub.url } });
    t.same((await edge.get(`/v2/a/b/blobs/${blob.digest}`, { via: '1.1 office' })).body, blob.bytes);
    t.match(registry.seen.at(-1)?.headers.via, /^1\.1 office, 1\.1 narrows-[0-9a-f]{12}, 1\.1 narrows-[0-9a-f]{12}$/);
  },
);
