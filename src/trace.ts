import type * as Otel from '@opentelemetry/api';

type Attributes = Record<string, string | number | boolean | undefined>;

/** Something that takes time, for those who look at where it goes. */
export interface Span {
  /** What runs in here, and sets off spans of its own, is part of this one. */
  run<T>(action: () => T): T;
  /** @param error what it ended with, where that is trouble */
  end(attributes: Attributes, error?: unknown): void;
}

const untraced: Span = { run: (action) => action(), end: () => undefined };

let otel: typeof Otel | undefined;

/**
 * Spans are made through the API of OpenTelemetry where it is installed (an optional peer), and go where a NodeSDK that
 * was started before says (`NODE_OPTIONS=--import=./tracing.mjs`). Without either this costs nothing.
 *
 * @returns is there an SDK that they go to?
 */
export async function openTracing(): Promise<boolean> {
  const api = await import('@opentelemetry/api').catch(() => undefined);
  const provider = api?.trace.getTracerProvider();
  // The API alone stands in for an SDK that may come later, and makes spans of nothing.
  const isThere = api && !(provider instanceof api.ProxyTracerProvider && !provider.getDelegateTracer('narrows'));
  otel = isThere ? api : undefined;
  return otel !== undefined;
}

/** Is anything written down of what is asked? */
export function isTracing(): boolean {
  return otel !== undefined;
}

/** @param headers of whoever asked: `traceparent` in them is what it is part of (W3C Trace Context) */
export function serverSpan(name: string, headers: Readonly<Record<string, unknown>>): Span {
  if (!otel) return untraced;
  return open(otel, name, otel.SpanKind.SERVER, otel.propagation.extract(otel.context.active(), headers));
}

export function clientSpan(name: string): Span {
  return otel ? open(otel, name, otel.SpanKind.CLIENT, otel.context.active()) : untraced;
}

/** What to send along, so that what is set off elsewhere is part of the span that runs now. */
export function traceHeaders(): Record<string, string> {
  const headers: Record<string, string> = {};
  otel?.propagation.inject(otel.context.active(), headers);
  return headers;
}

function open(api: typeof Otel, name: string, kind: Otel.SpanKind, parent: Otel.Context): Span {
  const span = api.trace.getTracer('narrows').startSpan(name, { kind }, parent);
  const context = api.trace.setSpan(parent, span);
  return {
    run: (action) => api.context.with(context, action),
    end(attributes, error) {
      for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span.setAttribute(key, value);
      // Its message alone: other fields may hold what is secret.
      if (error !== undefined) span.setStatus({ code: api.SpanStatusCode.ERROR, message: (error as Error).message });
      span.end();
    },
  };
}

/** The trace that a request says to be part of, for the log; undefined for none. */
export function traceIdOf(traceparent: unknown): string | undefined {
  const [, id = ''] = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(String(traceparent)) ?? [];
  return id === '' || /^0+$/.test(id) ? undefined : id;
}
