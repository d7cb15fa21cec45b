import { readFile } from 'node:fs/promises';
import { fixedKeys, remoteKeys } from '../access/issuers.ts';
import type { Issuer } from '../access/issuers.ts';
import type { Config } from '../config.ts';
import { createDocuments } from '../upstream/documents.ts';
import type { Context } from './context.ts';

const maxDocumentBytes = 1024 * 1024;

type Settings = Config['access']['issuers'][number];

/** Those who vouch for callers, with their keys out of a file, or fetched when the first token comes. */
export function openIssuers(context: Context): Promise<Issuer[]> {
  return Promise.all(
    context.config.access.issuers.map(async (settings) => ({
      url: settings.url,
      audience: settings.audience,
      prefix: settings.prefix,
      userClaim: settings.user ?? 'sub',
      groupsClaim: settings.groups ?? 'groups',
      keys: await openKeys(settings, context),
    })),
  );
}

async function openKeys(settings: Settings, { config, log, now, closers }: Context): Promise<Issuer['keys']> {
  const { url, jwks, ca, tokenFile } = settings;
  if (jwks !== undefined && !URL.canParse(jwks)) return fixedKeys(await readFile(jwks, 'utf8'));
  const documents = createDocuments({
    host: new URL(jwks ?? url),
    ca: ca === undefined ? undefined : await readFile(ca, 'utf8'),
    connectTimeoutMs: config.limits.upstreamConnect,
    headersTimeoutMs: config.limits.upstreamHeaders,
    maxBytes: maxDocumentBytes,
  });
  closers.push(() => documents.close());
  return remoteKeys({
    issuer: url,
    jwks: jwks === undefined ? undefined : new URL(jwks),
    now,
    async fetch(at) {
      // Read again each time: that of a pod is replaced every hour.
      const token = tokenFile === undefined ? undefined : (await readFile(tokenFile, 'utf8')).trim();
      const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
      return documents.fetch(at, headers).catch((error: unknown) => {
        log.error({ err: error, issuer: url }, 'the keys of an issuer cannot be fetched');
        throw error;
      });
    },
  });
}
