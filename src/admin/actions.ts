import type { IncomingMessage } from 'node:http';
import { NarrowsError } from '../errors.ts';

/** What can be done by way of the admin listener. Throws are told, as those of `AdminApi`. */
export interface AdminActions {
  /** Who may: before each of the others. @throws NarrowsError unauthorized, denied */
  require(who: { authorization: string | undefined; address: string | undefined }): Promise<void>;
  /** Fetches an image in the background, and keeps it from then on. */
  warm(image: string, platforms: readonly string[]): Promise<unknown>;
  /** What was kept of it may be evicted from now on. */
  unpin(image: string): Promise<unknown>;
  /** Takes away what is here of it alone, and what was known of it. */
  purge(image: string): Promise<unknown>;
  offline(isOffline: boolean): Promise<unknown>;
  /** How much is logged, until the configuration is read again. */
  log(level: string): Promise<unknown>;
}

type Body = Readonly<Record<string, unknown>>;

const actions: Readonly<Record<string, (actions: AdminActions, body: Body) => Promise<unknown>>> = {
  '/api/warm': (to, body) => to.warm(textIn(body, 'image'), textsIn(body, 'platforms')),
  '/api/unpin': (to, body) => to.unpin(textIn(body, 'image')),
  '/api/purge': (to, body) => to.purge(textIn(body, 'image')),
  '/api/offline': (to, body) => to.offline(flagIn(body, 'offline')),
  '/api/log': (to, body) => to.log(textIn(body, 'level')),
};

export function isAction(pathname: string): boolean {
  return Object.hasOwn(actions, pathname);
}

const maxBodyBytes = 64 * 1024;

/**
 * @throws NarrowsError queryInvalid for what cannot be understood; unauthorized and denied for who may not; else what
 *   the action throws
 */
export async function act(request: IncomingMessage, pathname: string, to: AdminActions): Promise<unknown> {
  const { headers, socket } = request;
  // A page of another site can send a form here without asking, but no JSON.
  if (!/^application\/json\b/i.test(headers['content-type'] ?? '')) {
    throw new NarrowsError('queryInvalid', 'An action is asked for in JSON, with content-type: application/json.');
  }
  await to.require({ authorization: headers.authorization, address: socket.remoteAddress });
  return actions[pathname]!(to, await bodyOf(request));
}

async function bodyOf(request: IncomingMessage): Promise<Body> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBodyBytes) throw new NarrowsError('tooLarge', `This is more than ${maxBodyBytes} bytes.`);
    chunks.push(chunk);
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(chunks).toString());
    if (typeof value === 'object' && value !== null) return { ...value };
  } catch {
    // Told below, with what is JSON and no object.
  }
  throw new NarrowsError('queryInvalid', 'What was sent is no JSON object.');
}

function textIn(body: Body, key: string): string {
  const value = body[key];
  if (typeof value === 'string' && value !== '') return value;
  throw new NarrowsError('queryInvalid', `Say which ${key}, as text.`);
}

function textsIn(body: Body, key: string): readonly string[] {
  const value = body[key];
  if (Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === 'string')) return value;
  throw new NarrowsError('queryInvalid', `Say which ${key}, as a list of texts.`);
}

function flagIn(body: Body, key: string): boolean {
  const value = body[key];
  if (typeof value === 'boolean') return value;
  throw new NarrowsError('queryInvalid', `Say ${key}: true or false.`);
}
