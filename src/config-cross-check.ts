import { isIP, isIPv6 } from 'node:net';
import { reservedNames } from './access/identity.ts';
import { canonicalName } from './oci/host.ts';
import { parsePlatform } from './oci/platform.ts';

/** One thing that is wrong, and where. */
export interface Mistake {
  readonly path: string;
  readonly message: string;
}

/** What no single field can know: names that must exist elsewhere. Works on what may be wrong in other places. */
export function crossCheck(value: unknown): Mistake[] {
  const config = asMap(value);
  const mistakes: Mistake[] = [];
  const upstreams = Object.keys(asMap(config['upstreams']));
  const platforms = asMap(config['platforms']);
  const sets = asMap(platforms['sets']);

  const checkUpstream = (path: string, name: unknown) => {
    if (typeof name === 'string' && !upstreams.includes(name))
      mistakes.push({ path, message: `there is no upstream ${name}` });
  };
  const checkSet = (path: string, reference: unknown) => {
    for (const entry of [reference].flat()) {
      if (typeof entry !== 'string' || entry === 'any' || Object.hasOwn(sets, entry) || parsePlatform(entry)) continue;
      mistakes.push({
        path,
        message: `${JSON.stringify(entry)} is no platform such as linux/arm64, no named set, and not any`,
      });
    }
  };

  const cache = asMap(config['cache']);
  checkSet('cache.platforms', cache['platforms'] === 'all' ? 'any' : (cache['platforms'] ?? 'any'));
  const places = asMap(cache['redis']);
  if (isSet(places, 'password') && isSet(places, 'passwordFile')) {
    mistakes.push({ path: 'cache.redis.password', message: 'expected either password or passwordFile' });
  }
  const bucket = asMap(cache['s3']);
  const secret = ['secretAccessKey', 'secretAccessKeyFile'].find((key) => isSet(bucket, key));
  if (isSet(bucket, 'accessKeyId') !== (secret !== undefined)) {
    const path = `cache.s3.${secret ?? 'accessKeyId'}`;
    mistakes.push({ path, message: 'expected accessKeyId and its secret together, or neither' });
  }
  const named = ['url', 'cluster', 'sentinels'].filter((key) => isSet(places, key) && [places[key]].flat().length > 0);
  if (named.length > 1) {
    mistakes.push({
      path: 'cache.redis',
      message: `expected one of url, cluster and sentinels, not ${named.join(' and ')}`,
    });
  }
  checkUpstream('defaultUpstream', config['defaultUpstream']);
  for (const [name, entry] of Object.entries(asMap(config['upstreams']))) {
    const { clientCertificate, proxy = 'none', url } = asMap(entry);
    const right = canonicalName(name);
    if (right !== name)
      mistakes.push({ path: `upstreams.${name}`, message: `expected the one form that is compared: ${right}` });
    const path = `upstreams.${name}.clientCertificate`;
    if (clientCertificate === undefined) continue;
    if (proxy !== 'none') mistakes.push({ path, message: 'it is not shown through a proxy; set proxy: none' });
    if (textOf(url).startsWith('http:')) mistakes.push({ path, message: 'only https can show it' });
  }
  for (const [index, entry] of mapsOf(config['listen']).entries()) {
    checkUpstream(`listen.${index}.upstream`, entry['upstream']);
    if (entry['platforms'] !== undefined) checkSet(`listen.${index}.platforms`, entry['platforms']);
  }
  for (const [index, { upstream }] of mapsOf(config['bandwidth']).entries()) {
    checkUpstream(`bandwidth.${index}.upstream`, upstream);
  }
  for (const name of Object.keys(sets)) {
    if (!/^[a-z0-9]+([._-][a-z0-9]+)*$/.test(name) || name === 'any') {
      mistakes.push({
        path: `platforms.sets.${name}`,
        message:
          'a set is named with lower-case letters, digits and . _ - between them, and not any: it stands in paths',
      });
    }
  }
  for (const [host, set] of Object.entries(asMap(platforms['hosts']))) checkSet(`platforms.hosts.${host}`, set);
  for (const [name, set] of Object.entries(asMap(platforms['users']))) checkSet(`platforms.users.${name}`, set);
  for (const [network, set] of Object.entries(asMap(platforms['addresses']))) {
    checkSet(`platforms.addresses.${network}`, set);
    if (!isNetwork(network)) {
      mistakes.push({ path: `platforms.addresses.${network}`, message: 'expected a network such as 10.1.0.0/16' });
    }
  }
  mistakes.push(...checkRepositories(config, upstreams));
  return mistakes;
}

function isSet(map: Record<string, unknown>, key: string): boolean {
  return map[key] !== null && map[key] !== undefined;
}

/** What is no map has been told as a mistake already. */
function asMap(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}

function isNetwork(cidr: string): boolean {
  const [network = '', prefix = '', ...rest] = cidr.split('/');
  return (
    rest.length === 0 && isIP(network) > 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= (isIPv6(network) ? 128 : 32)
  );
}

/** What is pushed here must be told from what is mirrored, and a right that nobody can have is a mistake. */
function checkRepositories(config: Record<string, unknown>, upstreams: readonly string[]): Mistake[] {
  const mistakes: Mistake[] = [];
  const access = asMap(config['access']);
  const isOpen = access['mode'] === 'none';
  if (access['mode'] === 'basic' && !isSet(access, 'htpasswd')) {
    mistakes.push({ path: 'access.htpasswd', message: 'expected a file of users, as htpasswd -B makes it' });
  }
  mistakes.push(...checkTokens(config, access), ...checkCallers(config, access, upstreams));
  const authorities = mapsOf(config['listen']).map(({ tls }) => isSet(asMap(tls), 'clientCa'));
  if (access['mode'] === 'certificate' && !authorities.includes(true)) {
    const message = 'no listener asks for certificates; give one of them tls.clientCa';
    mistakes.push({ path: 'access.mode', message });
  }
  for (const index of isOpen ? authorities.keys().filter((at) => authorities[at]) : []) {
    const message = 'with access.mode none nobody is asked who they are; set it to certificate, basic or token';
    mistakes.push({ path: `listen.${index}.tls.clientCa`, message });
  }
  const act = asMap(config['admin'])['act'];
  if (access['mode'] !== 'basic' && access['mode'] !== 'token' && isLocked(act)) {
    mistakes.push({ path: 'admin.act', message: 'nobody can log in there; set access.mode to basic or token' });
  }
  for (const name of Object.keys(asMap(access['groups'])).filter((one) => reservedNames.includes(one))) {
    mistakes.push({ path: `access.groups.${name}`, message: `no group can be called ${name}` });
  }
  for (const [index, entry] of mapsOf(config['repositories']).entries()) {
    const path = `repositories.${index}`;
    const name = textOf(entry['name']);
    const isHosted = entry['hosted'] === true;
    // A `*` is any text, with slashes: what stands before it is all that tells the names apart.
    const [start = ''] = name.split('*', 1);
    const upstream = upstreams.find(
      (one) => start.startsWith(`${one}/`) || (start !== name && `${one}/`.startsWith(start)),
    );
    if (isHosted && upstream !== undefined) {
      mistakes.push({
        path: `${path}.name`,
        message: `${upstream} is mirrored, and this would cover it: what is hosted here needs a name of its own`,
      });
    }
    for (const [at, { from }] of mapsOf(entry['overlays']).entries()) {
      const [registry = ''] = textOf(from).split('/', 1);
      const where = `${path}.overlays.${at}.from`;
      if (registry.includes('.') && !upstreams.includes(registry)) {
        mistakes.push({ path: where, message: `there is no upstream ${registry}` });
      }
      if (from === name) mistakes.push({ path: where, message: 'a repository supplies nothing to itself' });
    }
    for (const key of ['compose', 'push', 'owners'].filter((one) => !isHosted && entry[one] !== undefined)) {
      mistakes.push({ path: `${path}.${key}`, message: 'only what is hosted here is pushed to; add hosted: true' });
    }
    for (const key of ['push', 'pull', 'owners']) {
      const lists = key === 'owners' ? Object.values(asMap(entry[key])) : [entry[key] ?? []];
      if (!isOpen || !lists.some(isLocked)) continue;
      mistakes.push({ path: `${path}.${key}`, message: 'nobody can say who they are; set access.mode' });
    }
  }
  return mistakes;
}

/** Does it name anyone but everyone? */
function isLocked(names: unknown): boolean {
  return Array.isArray(names) && names.some((one) => one !== 'anonymous');
}

function checkTokens(config: Record<string, unknown>, access: Record<string, unknown>): Mistake[] {
  const mistakes: Mistake[] = [];
  const { mode } = access;
  const issuers = mapsOf(access['issuers']);
  if (mode === 'token' && !isSet(access, 'htpasswd') && issuers.length === 0) {
    mistakes.push({ path: 'access.mode', message: 'nobody could get a token; set access.htpasswd or access.issuers' });
  }
  const keys = asMap(access['token'])['keys'];
  if (
    mode === 'token' &&
    typeof config['workers'] === 'number' &&
    config['workers'] > 1 &&
    Array.isArray(keys) &&
    keys.length === 0
  ) {
    const message = 'workers look at the tokens of one another: give a file of at least 32 random bytes';
    mistakes.push({ path: 'access.token.keys', message });
  }
  if (issuers.length > 0 && mode !== 'basic' && mode !== 'token') {
    mistakes.push({ path: 'access.issuers', message: 'tokens are not looked at; set access.mode to token or basic' });
  }
  for (const [index, { url, prefix, jwks }] of issuers.entries()) {
    const path = `access.issuers.${index}`;
    const isTwice = (key: string, value: unknown) => issuers.findIndex((other) => other[key] === value) < index;
    if (isTwice('url', url)) mistakes.push({ path: `${path}.url`, message: 'there is another entry of this issuer' });
    if (isTwice('prefix', prefix)) {
      mistakes.push({ path: `${path}.prefix`, message: 'the users of two issuers could not be told apart' });
    }
    if (jwks === undefined && !/^https?:$/.test(URL.parse(textOf(url))?.protocol ?? '')) {
      mistakes.push({ path: `${path}.url`, message: 'expected a URL, or jwks: where its keys are' });
    }
  }
  if (mode === 'none' && Object.keys(asMap(asMap(config['platforms'])['users'])).length > 0) {
    mistakes.push({ path: 'platforms.users', message: 'nobody can say who they are; set access.mode' });
  }
  return mistakes;
}

/** Where the upstream says what callers may read, nothing can be theirs that it knows nothing of. */
function checkCallers(
  config: Record<string, unknown>,
  access: Record<string, unknown>,
  upstreams: readonly string[],
): Mistake[] {
  const registry = asMap(access['upstream'])['registry'];
  const path = 'access.upstream.registry';
  if (access['mode'] !== 'upstream') {
    const message = 'callers are not asked for it; set access.mode to upstream';
    return registry === null || registry === undefined ? [] : [{ path, message }];
  }
  const mistakes: Mistake[] = [];
  if (!upstreams.includes(textOf(registry))) {
    mistakes.push({ path, message: 'expected the upstream whose users and passwords clients show, such as ghcr.io' });
  }
  if (config['offline'] === true) {
    mistakes.push({ path: 'access.mode', message: 'offline, no upstream can be asked what callers may read' });
  }
  for (const [index, entry] of mapsOf(config['repositories']).entries()) {
    for (const key of ['pull', 'hosted', 'overlays'].filter((one) => isSet(entry, one) && entry[one] !== false)) {
      const message = 'with access.mode upstream, the upstream alone says who may read, and knows nothing of this';
      mistakes.push({ path: `repositories.${index}.${key}`, message });
    }
  }
  for (const [index, { tls }] of mapsOf(config['listen']).entries()) {
    if (!isSet(asMap(tls), 'clientCa')) continue;
    const message = 'with access.mode upstream, no certificate says what a caller may read';
    mistakes.push({ path: `listen.${index}.tls.clientCa`, message });
  }
  if (Object.keys(asMap(asMap(config['platforms'])['users'])).length > 0) {
    mistakes.push({ path: 'platforms.users', message: 'with access.mode upstream nobody here knows who a caller is' });
  }
  return mistakes;
}

function mapsOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.map(asMap) : [];
}

/** What is no text has been told as a mistake already. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
