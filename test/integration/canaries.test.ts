import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import t from 'tap';
import { runCommand } from '../fixtures/process.ts';
import { startTestMirror, temporaryFolder } from '../fixtures/mirror.ts';
import { basic } from '../fixtures/push.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';
import { blobOf, listen, startRegistry } from '../fixtures/registry.ts';
import { closedPort } from '../fixtures/servers.ts';

const skip = hasRedis ? false : 'redis-server is not installed';

/** Every secret has this in it, whole or in base64. */
const canary = 'canaryInTheMine';
const secret = (what: string) => `${canary}-${what}`;
// In base64 it depends on where it begins.
const traces = ['', 'x', 'xx'].map((shift) =>
  Buffer.from(shift + canary)
    .toString('base64')
    .slice(shift ? 4 : 0, -4),
);

void t.test(
  '36. no secret is in a log, a metric, an answer, or what a command prints, whatever goes wrong',
  { skip },
  async (t) => {
    const registry = await startRegistry();
    t.teardown(() => registry.close());
    const blob = blobOf(Buffer.from('content'));
    registry.put('team/x', blob);
    const storage = createServer((_, response) => response.writeHead(403).end(`<Error>${secret('signature')}</Error>`));
    const storagePort = await listen(storage);
    t.teardown(() => storage.close());
    let way = 0;
    // The registry asks for tokens, redirects to signed addresses, and says in its errors what it was sent.
    registry.script = ({ path, headers, query }, response) => {
      const told = JSON.stringify({
        errors: [{ code: 'DENIED', message: `${headers.authorization} ${query.toString()}` }],
      });
      if (path === '/token') {
        response.end(JSON.stringify({ token: secret('upstream-token'), expires_in: 300 }));
        return true;
      }
      if (headers.authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': `Bearer realm="${registry.url}/token",service="r"` }).end();
        return true;
      }
      const answers: (() => void)[] = [
        () =>
          response
            .writeHead(307, { location: `http://127.0.0.1:${storagePort}/b?X-Amz-Signature=${secret('signed')}` })
            .end(),
        () => response.writeHead(307, { location: `http://u:${secret('userinfo')}@127.0.0.1:${storagePort}/` }).end(),
        () => response.writeHead(403).end(told),
        () => response.writeHead(500).end(told),
        () =>
          response
            .writeHead(401, { 'www-authenticate': `Bearer realm="http://evil.test/?t=${secret('realm')}"` })
            .end(told),
        () => response.socket?.resetAndDestroy(),
      ];
      answers[way++ % answers.length]!();
      return true;
    };

    const folder = await temporaryFolder(t);
    const file = async (name: string, text: string) => {
      await writeFile(join(folder, name), text);
      return join(folder, name);
    };
    const host = new URL(registry.url).host;
    const auths = { [host]: { identitytoken: secret('identity') } };
    const redis = await startRedis(t, '--requirepass', secret('redis'));
    const config = {
      access: {
        mode: 'token',
        htpasswd: await file('users', `alice:${hashSync(secret('password'), 4)}\n`),
        token: { keys: [await file('key', secret('a key that signs tokens of this mirror'))] },
        pull: ['anonymous'],
      },
      dockerConfig: await file('config.json', JSON.stringify({ auths })),
      cache: {
        redis: {
          url: `redis://:${secret('redis')}@127.0.0.1:${redis.port}`,
          sealKeys: [await file('seal', secret('a key that seals records'))],
        },
        s3: {
          bucket: 'b',
          endpoint: `http://127.0.0.1:${await closedPort()}`,
          accessKeyId: 'id',
          secretAccessKey: secret('s3'),
        },
      },
      log: { level: 'trace' },
    };
    const upstreams = {
      up: {
        url: registry.url,
        credentials: { username: 'robot', password: secret('robot') },
        trustedHosts: [`127.0.0.1:${storagePort}`],
      },
      helped: { url: registry.url },
      proxied: { url: 'http://registry.test', proxy: `http://u:${secret('proxy')}@127.0.0.1:${await closedPort()}` },
    };
    const mirror = await startTestMirror(t, { upstreams, config });
    const said: string[] = [];
    const ask = async (path: string, headers: Record<string, string> = {}) => {
      const answer = await mirror.get(path, headers);
      said.push(
        `${answer.status} ${JSON.stringify(answer.headers)} ${path.startsWith('/token') ? '' : answer.body.toString()}`,
      );
      return answer;
    };

    for (const upstream of ['up', 'helped', 'proxied']) {
      for (let round = 0; round < 7; round++) {
        for (const rest of [`blobs/${blob.digest}`, `manifests/${round}`, 'tags/list'])
          await ask(`/v2/${upstream}/team/x/${rest}`);
      }
    }
    const { token } = (
      await ask('/token?scope=repository:up/team/x:pull', { authorization: basic(`alice:${secret('password')}`) })
    ).json<{ token: string }>();
    const logins = [
      basic(`alice:${secret('wrong')}`),
      basic(`${secret('user')}:x`),
      `Bearer ${secret('bearer')}`,
      `Bearer ${token}`,
      `Basic ${secret('no-base64')}`,
      secret('no-scheme'),
    ];
    for (const authorization of logins) await ask('/v2/', { authorization });
    await ask(`/v2/up/team/x/tags/list?access_token=${secret('query')}`);
    const form = new URLSearchParams({
      grant_type: 'password',
      username: 'alice',
      password: secret('form'),
    }).toString();
    const posted = await mirror.send('POST', '/token', Buffer.from(form), {
      'content-type': 'application/x-www-form-urlencoded',
    });
    said.push(posted.body.toString());
    await redis.kill();
    for (let round = 0; round < 3; round++) await ask(`/v2/up/team/x/manifests/again-${round}`);
    for (const path of ['/metrics', '/readyz', '/healthz', '/api/images'])
      said.push((await mirror.get(mirror.adminUrl + path)).body.toString());

    const printed = await runCommand([
      'config',
      '--config',
      await file('narrows.yaml', JSON.stringify({ ...config, upstreams, defaultUpstream: 'up' })),
    ]);
    t.match(printed.out, /robot/, 'the configuration is printed');
    const texts = { log: mirror.log.join('\n'), answers: said.join('\n'), config: printed.out + printed.err };
    for (const [where, text] of Object.entries(texts)) {
      t.ok(text.length > 100, where);
      for (const trace of [canary, ...traces, token.slice(-20)]) {
        const at = text.indexOf(trace);
        t.equal(at, -1, `${where}: ${at < 0 ? '' : text.slice(Math.max(0, at - 200), at + 60)}`);
      }
    }
    t.ok(
      registry.seen.some(({ headers }) => headers.authorization?.includes(canary)),
      'they were in use',
    );
  },
);
