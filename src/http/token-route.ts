import type { IncomingMessage } from 'node:http';
import type { Asker } from '../access/access.ts';
import type { TokenService } from '../access/token-service.ts';
import { NarrowsError } from '../errors.ts';
import type { Reply } from '../pull/request.ts';
import { bodyOf } from './body.ts';

/** Where a mirror hands out tokens; no path of the registry API begins so. */
export function isTokenPath(url: string): boolean {
  return /^\/token(?:\?|$)/.test(url);
}

const maxFormBytes = 64 * 1024;

/**
 * Tokens are asked for by GET with a Basic header (distribution `auth/token.md`), and by POST with a form
 * (`auth/oauth.md`): containerd tries that first.
 *
 * @throws NarrowsError methodNotAllowed, queryInvalid, tooLarge, and what the service throws
 */
export async function tokenReply(
  service: TokenService,
  request: IncomingMessage,
  asker: Asker,
  fallback: string | undefined,
  stallMs: number,
): Promise<Reply> {
  const { method = '', url = '' } = request;
  if (method !== 'GET' && method !== 'POST') {
    throw new NarrowsError('methodNotAllowed', 'A token is asked for by GET or by POST.', {
      headers: { allow: 'GET, POST' },
    });
  }
  const query = new URLSearchParams(url.split('?').slice(1).join('?'));
  const form = method === 'POST' ? await readForm(request, stallMs) : query;
  const authorization = method === 'POST' ? authorizationOf(form) : asker.authorization;
  const question = { asker: { ...asker, authorization }, scopes: form.getAll('scope') };
  const bytes = Buffer.from(await service.answer(question, fallback));
  const headers = { 'content-type': 'application/json', 'cache-control': 'no-store' };
  return { status: 200, headers, body: { kind: 'bytes', bytes } };
}

async function readForm(request: IncomingMessage, stallMs: number): Promise<URLSearchParams> {
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  if (type !== 'application/x-www-form-urlencoded') {
    throw new NarrowsError('queryInvalid', 'A token is asked for with a form: application/x-www-form-urlencoded.');
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of bodyOf(request, stallMs)) {
    length += chunk.length;
    if (length > maxFormBytes) throw new NarrowsError('tooLarge', 'The form is too long.');
    chunks.push(chunk);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

function authorizationOf(form: URLSearchParams): string {
  const grant = form.get('grant_type');
  if (grant === 'password') {
    const pair = `${form.get('username') ?? ''}:${form.get('password') ?? ''}`;
    return `Basic ${Buffer.from(pair).toString('base64')}`;
  }
  // How clients send what a registry calls an identity token: here, that of an issuer.
  if (grant === 'refresh_token') return `Bearer ${form.get('refresh_token') ?? ''}`;
  throw new NarrowsError('queryInvalid', 'grant_type has to be password or refresh_token.');
}
