import { z } from 'zod';
import { address, anyUrl, count, duration, flag, setReference, size, text, wait } from './config-values.ts';

const redisUrl = z
  .string({ error: 'expected a URL such as redis://127.0.0.1:6379' })
  .refine((value) => URL.canParse(value) && /^rediss?:$/.test(new URL(value).protocol), {
    error: 'expected a URL such as redis://127.0.0.1:6379, or rediss:// for TLS',
  });
const nodes = z.array(address, { error: 'expected a list of addresses such as [10.0.0.1:6379]' });

const redis = z.strictObject({
  url: redisUrl.nullable(),
  cluster: nodes,
  sentinels: nodes,
  master: text,
  tls: flag,
  ca: text.nullable(),
  username: text.nullable(),
  password: text.nullable(),
  passwordFile: text.nullable(),
  sealKeys: z.array(text, { error: 'expected a list of files' }),
  prefix: z
    .string({ error: 'expected text' })
    .regex(/^[^{}]{0,64}$/, { error: 'expected up to 64 characters, none of them { or }' }),
  maxSize: size,
  maxBlobSize: size.refine((bytes) => bytes <= 2 ** 29, { error: 'expected at most 512MiB' }),
  ttl: duration.refine((ms) => ms >= 1000, { error: 'expected at least 1s' }),
  timeout: wait,
  connect: wait,
  lease: wait.refine((ms) => ms >= 500, { error: 'expected at least 500ms' }),
  queue: count,
  required: flag,
});

const s3 = z.strictObject({
  bucket: text.nullable(),
  prefix: z.string({ error: 'expected text' }),
  endpoint: anyUrl.nullable(),
  region: text,
  pathStyle: flag,
  accessKeyId: text.nullable(),
  secretAccessKey: text.nullable(),
  secretAccessKeyFile: text.nullable(),
  minBlobSize: size,
  maxSize: size,
  partSize: size.refine((bytes) => bytes >= 5 * 2 ** 20, { error: 'expected at least 5MiB, as S3 does' }),
  timeout: wait,
  connections: count,
  required: flag,
});

/** What is kept, where, and how much of it. */
export const cache = z.strictObject({
  memory: z.strictObject({ maxSize: size, maxBlobSize: size, maxAnswers: size, maxRecords: size, maxDocuments: size }),
  disk: z.strictObject({ path: text, maxSize: size }),
  platforms: setReference,
  onOther: z.enum(['stream', 'deny'], { error: 'expected stream or deny' }),
  redis,
  s3,
});
