import t from 'tap';
import { Agent } from 'undici';
import { startAdmin } from '../../src/admin/server.ts';
import { fetchAnswer } from '../fixtures/mirror.ts';

void t.test('health, readiness and metrics, each at its path', async (t) => {
  let isReady = true;
  const admin = await startAdmin({
    host: '127.0.0.1',
    port: 0,
    isReady: () => isReady,
    metrics: () => Promise.resolve({ text: 'a_total 1\n', contentType: 'text/plain; version=0.0.4' }),
  });
  const dispatcher = new Agent();
  t.teardown(async () => {
    await dispatcher.destroy();
    await admin.stop();
  });
  const get = (path: string, method: 'GET' | 'POST' = 'GET') =>
    fetchAnswer(`http://127.0.0.1:${admin.port}${path}`, { method, dispatcher });
  t.match(await get('/healthz'), { status: 200, body: Buffer.from('ok\n') });
  t.match(await get('/readyz'), { status: 200 });
  isReady = false;
  t.match(await get('/readyz'), { status: 503 }, 'stopping: no new work');
  t.match(await get('/healthz'), { status: 200 }, 'stopping is not dead');
  const metrics = await get('/metrics');
  t.match(metrics, { status: 200, headers: { 'content-type': 'text/plain; version=0.0.4' } });
  t.equal(metrics.body.toString(), 'a_total 1\n');
  t.match(await get('/other'), { status: 404 });
  t.match(await get('/metrics', 'POST'), { status: 405 });
});
