import { context, propagation, trace } from '@opentelemetry/api';
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import t from 'tap';
import { clientSpan, openTracing, serverSpan, traceHeaders, traceIdOf } from '../src/trace.ts';
import { until } from './fixtures/downloads.ts';
import { buildImage } from './fixtures/images.ts';
import { startTestMirror } from './fixtures/mirror.ts';
import { refuse, startRegistry } from './fixtures/registry.ts';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const traceparent = `00-${traceId}-b7ad6b7169203331-01`;
const image = buildImage({ platforms: ['linux/amd64', 'linux/arm64'], seed: 'traced' });
const exporter = new InMemorySpanExporter();
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });

void t.test('trace: before the API is there, nothing is made and nothing is sent', (t) => {
  t.equal(
    serverSpan('GET', { traceparent }).run(() => 7),
    7,
  );
  clientSpan('GET up').end({});
  t.same(traceHeaders(), {});
  t.same(exporter.getFinishedSpans(), []);
  t.end();
});

void t.test(
  'trace: a request is a span of the trace that it says, and what it asks upstream are spans in it',
  async (t) => {
    provider.register();
    t.teardown(() => {
      for (const api of [trace, context, propagation]) api.disable();
      return provider.shutdown();
    });
    t.equal(await openTracing(), true);
    const registry = await startRegistry();
    t.teardown(() => registry.close());
    registry.putImage('team/x', '1', image);
    const mirror = await startTestMirror(t, { upstreams: { up: { url: registry.url, hub: true } } });
    await mirror.get('/p/linux-arm64/v2/up/team/x/manifests/1', { traceparent, authorization: 'Basic canary' });
    const own = () => exporter.getFinishedSpans().filter((span) => span.spanContext().traceId === traceId);
    await until(() => own().some(({ name }) => name === 'GET'), 'the span of the request');
    const server = own().find(({ name }) => name === 'GET')!;
    t.equal(server.parentSpanContext?.spanId, 'b7ad6b7169203331');
    t.match(server.attributes, {
      'http.request.method': 'GET',
      'url.path': '/p/linux-arm64/v2/up/team/x/manifests/1',
      'http.response.status_code': 200,
      'narrows.view': 'image',
      'narrows.cache': 'miss',
    });
    const asked = own().filter(({ name }) => name !== 'GET');
    t.same(asked.map(({ name }) => name).toSorted(), ['GET up', 'GET up', 'GET up', 'HEAD up'].toSorted());
    for (const span of asked) t.equal(span.parentSpanContext?.spanId, server.spanContext().spanId);
    for (const { headers } of registry.seen) t.match(headers['traceparent'], new RegExp(`^00-${traceId}-`));
    t.notMatch(JSON.stringify(own().map(({ name, attributes, status }) => [name, attributes, status])), 'canary');
    const line = mirror.log.find((text) => text.includes('"msg":"request"'))!;
    t.match(JSON.parse(line), { trace: traceId });
    registry.script = (_seen, response) => {
      refuse(response, 503, 'UNAVAILABLE');
      return true;
    };
    exporter.reset();
    await mirror.get('/v2/up/team/x/manifests/other', { traceparent });
    await until(() => own().some(({ name }) => name === 'GET'), 'the span of a failure');
    const failed = own().find(({ name }) => name === 'GET')!;
    t.match(failed.status, { code: 2, message: 'up answers 503.' });
  },
);

void t.test('trace: registries of others are told nothing of it', async (t) => {
  provider.register();
  t.teardown(() => {
    for (const api of [trace, context, propagation]) api.disable();
  });
  const registry = await startRegistry();
  t.teardown(() => registry.close());
  registry.putImage('team/x', '1', image);
  const mirror = await startTestMirror(t, { upstreams: { up: registry.url } });
  const headers = { traceparent, tracestate: 'corp=internal', baggage: 'user=alice' };
  t.equal((await mirror.get('/v2/up/team/x/manifests/1', headers)).status, 200);
  for (const { headers: seen } of registry.seen) {
    for (const name of Object.keys(headers)) t.equal(seen[name], undefined, name);
  }
});

void t.test('trace: what is no trace of W3C is none', (t) => {
  t.equal(traceIdOf(traceparent), traceId);
  for (const text of [undefined, '', 'x', `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `00-${traceId}`, ['a', 'b']]) {
    t.equal(traceIdOf(text), undefined, String(text));
  }
  t.end();
});
