import { join } from 'node:path';
import t from 'tap';
import { createSandbox, requireProgram } from '../fixtures/clients.ts';
import { startTestMirror } from '../fixtures/mirror.ts';
import { hasRedis, startRedis } from '../fixtures/redis.ts';

const everything = {
  OCI_API_BLOBS_UPLOAD_CANCEL: 'true',
  OCI_API_BLOBS_DIGEST_HEADER: 'true',
  OCI_API_MANIFESTS_DIGEST_HEADER: 'true',
  OCI_API_MANIFESTS_TAG_PARAM: 'true',
};

/** The suite of the distribution specification itself, with everything switched on that it can ask for. */
for (const version of ['1.1', 'dev']) {
  for (const place of ['disk', 'Redis']) {
    const skip = place === 'Redis' && !hasRedis;
    void t.test(`conformance: ${version}, hosted on ${place}`, { skip }, async (t) => {
      const program = await requireProgram(t, 'oci-conformance');
      if (program === undefined) return;
      const sandbox = await createSandbox(t);
      const redis = place === 'Redis' ? await startRedis(t) : undefined;
      const mirror = await startTestMirror(t, {
        upstreams: { lab: 'http://127.0.0.1:1' },
        config: {
          repositories: [{ name: 'conformance/*', hosted: true, push: ['anonymous'] }],
          ...(redis && { cache: { redis: { url: redis.url, timeout: '5s' } } }),
        },
      });
      const env = {
        ...everything,
        OCI_REGISTRY: new URL(mirror.url).host,
        OCI_TLS: 'disabled',
        OCI_VERSION: version,
        OCI_RESULTS_DIR: join(sandbox.home, 'results'),
      };
      const words = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      const ran = await sandbox.run('env', ...words, program);
      t.equal(ran.code, 0, ran.out.slice(-2000));
      const lines = ran.out.split('\n');
      t.same(
        lines.filter((line) => /: +(?:FAIL|Fail|Error)/.test(line)),
        [],
      );
      // It says so much of each thing that it asks for; what it did not try would say Skip or Disabled.
      t.ok(lines.filter((line) => /: +Pass/.test(line)).length > 900, 'and it was asked for');
    });
  }
}
