import type * as S3Module from '@aws-sdk/client-s3';
import type { Readable } from 'node:stream';
import { createBreaker } from './breaker.ts';

export interface S3Options {
  readonly bucket: string;
  readonly endpoint?: string | undefined;
  readonly region: string;
  readonly pathStyle: boolean;
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  readonly maxSockets: number;
  readonly stallMs: number;
  /** @param error why it is left alone; undefined when it is used again */
  onChange(error: unknown): void;
}

/** What is known of an object without reading it. */
export interface S3Object {
  readonly key: string;
  readonly bytes: number;
  readonly changedAtMs: number;
}

/** A bucket, as far as a blob store needs one. Every method throws TierAway while it is being left alone. */
export interface S3Store {
  head(key: string): Promise<S3Object | undefined>;
  /** The object from `from` on; its pieces are the reader's own. */
  read(key: string, from: number): Promise<Readable>;
  put(key: string, bytes: Buffer): Promise<void>;
  /** Becomes visible when it is finished, and not before. */
  beginParts(key: string): Promise<S3Parts>;
  /** Makes it count as new, for the order of eviction. */
  touch(key: string): Promise<void>;
  delete(keys: readonly string[]): Promise<void>;
  list(prefix: string): AsyncIterable<S3Object[]>;
  /** A body has come to a halt: until the store answers again, nobody should wait for it. */
  leaveAlone(error: unknown): void;
  /** @throws Error why the bucket cannot be used, one sentence */
  check(): Promise<void>;
  close(): void;
}

export interface S3Parts {
  put(bytes: Buffer): Promise<void>;
  finish(): Promise<void>;
  abort(): Promise<void>;
}

type Sdk = typeof S3Module;

/** The SDK is no part of narrows: it weighs as much as everything else together. */
async function loadSdk(): Promise<Sdk> {
  try {
    return await import('@aws-sdk/client-s3');
  } catch (cause) {
    throw new Error('cache.s3 needs the package @aws-sdk/client-s3: npm install @aws-sdk/client-s3', { cause });
  }
}

export async function openS3(options: S3Options): Promise<S3Store> {
  const sdk = await loadSdk();
  const { bucket: Bucket, stallMs, onChange } = options;
  const client = createClient(sdk, options);
  const ping = () => client.send(new sdk.HeadBucketCommand({ Bucket }));
  const breaker = createBreaker({
    name: 's3',
    stallMs,
    retryMs: 1000,
    maxRetryMs: 15_000,
    probe: ping,
    isAway: isAwayError,
    onChange,
  });

  async function* list(Prefix: string): AsyncGenerator<S3Object[]> {
    let token: string | undefined;
    do {
      const page = await breaker.run(() =>
        client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix, ...(token && { ContinuationToken: token }) })),
      );
      yield (page.Contents ?? []).map(({ Key = '', Size = 0, LastModified }) => ({
        key: Key,
        bytes: Size,
        changedAtMs: LastModified?.getTime() ?? 0,
      }));
      // A listing that goes on and does not say where would count as the end, and everything behind it as gone.
      if (page.IsTruncated && !page.NextContinuationToken) throw new Error('the listing is cut off without a token');
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token);
  }

  return {
    list,

    async head(Key) {
      try {
        const { ContentLength, LastModified } = await breaker.run(() =>
          client.send(new sdk.HeadObjectCommand({ Bucket, Key })),
        );
        return { key: Key, bytes: ContentLength ?? 0, changedAtMs: LastModified?.getTime() ?? 0 };
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    },

    async read(Key, from) {
      const Range = `bytes=${from}-`;
      const { Body, ContentRange } = await breaker.run(() =>
        client.send(new sdk.GetObjectCommand({ Bucket, Key, Range })),
      );
      if (!Body) throw new Error(`the store gave no content for ${Key}`);
      // What ignores a range would be read from the wrong place.
      if (from > 0 && !ContentRange?.startsWith(`bytes ${from}-`)) {
        (Body as Readable).destroy();
        throw new Error(`the store answers ${ContentRange ?? 'all'} to ${Range}`);
      }
      return Body as Readable;
    },

    async put(Key, Body) {
      await breaker.pass(() =>
        client.send(new sdk.PutObjectCommand({ Bucket, Key, Body, ContentLength: Body.length })),
      );
    },

    async beginParts(Key) {
      const { UploadId } = await breaker.run(() => client.send(new sdk.CreateMultipartUploadCommand({ Bucket, Key })));
      const Parts: { PartNumber: number; ETag: string | undefined }[] = [];
      return {
        async put(Body) {
          const PartNumber = Parts.length + 1;
          const part = { Bucket, Key, UploadId, PartNumber, Body, ContentLength: Body.length };
          const { ETag } = await breaker.pass(() => client.send(new sdk.UploadPartCommand(part)));
          Parts.push({ PartNumber, ETag });
        },
        async finish() {
          const upload = { Bucket, Key, UploadId, MultipartUpload: { Parts } };
          await breaker.pass(() => client.send(new sdk.CompleteMultipartUploadCommand(upload)));
        },
        async abort() {
          await breaker.run(() => client.send(new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId })));
        },
      };
    },

    async touch(Key) {
      const CopySource = `${Bucket}/${encodeURI(Key)}`;
      const copy = { Bucket, Key, CopySource, MetadataDirective: 'REPLACE' as const };
      await breaker.pass(() => client.send(new sdk.CopyObjectCommand(copy)));
    },

    async delete(keys) {
      if (keys.length === 0) return;
      const Delete = { Objects: keys.map((Key) => ({ Key })), Quiet: true };
      const { Errors = [] } = await breaker.run(() => client.send(new sdk.DeleteObjectsCommand({ Bucket, Delete })));
      const [first] = Errors;
      if (first) throw new Error(`${Errors.length} of ${keys.length} objects stay: ${first.Code} for ${first.Key}`);
    },

    leaveAlone: breaker.trip,

    async check() {
      try {
        await breaker.run(ping);
      } catch (error) {
        throw new Error(reasonOf(error, options), { cause: error });
      }
    },

    close() {
      breaker.close();
      client.destroy();
    },
  };
}

function createClient(
  sdk: Sdk,
  { endpoint, region, pathStyle, credentials, maxSockets, stallMs }: S3Options,
): S3Module.S3Client {
  return new sdk.S3Client({
    region,
    forcePathStyle: pathStyle,
    ...(endpoint !== undefined && { endpoint }),
    ...(credentials && { credentials }),
    // Ours are the digests; stores of others do not know Amazon's newer checksums.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // The breaker decides when to try again.
    maxAttempts: 1,
    requestHandler: {
      requestTimeout: 0,
      connectionTimeout: stallMs,
      // An upload or a body takes its time, but something has to move.
      socketTimeout: stallMs,
      httpAgent: { maxSockets },
      httpsAgent: { maxSockets },
    },
  });
}

interface SdkError {
  readonly name?: string;
  readonly message?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

function statusOf(error: unknown): number | undefined {
  return (error as SdkError | undefined)?.$metadata?.httpStatusCode;
}

function isMissing(error: unknown): boolean {
  return statusOf(error) === 404;
}

/** Refusals of one object are no trouble of the store; a missing bucket or right is. */
function isAwayError(error: unknown): boolean {
  const status = statusOf(error);
  return status === undefined || status >= 500 || status === 403 || (error as SdkError).name === 'NoSuchBucket';
}

function reasonOf(error: unknown, { bucket, stallMs }: S3Options): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : (error as Error);
  const status = statusOf(cause);
  if (status === 404) return `there is no bucket ${bucket}`;
  if (status === 403 || status === 401) return `the bucket ${bucket} may not be used with these credentials`;
  // The answer to a HEAD has no body that would say more.
  if (status !== undefined) return `the store answers ${status} when asked for the bucket ${bucket}`;
  return cause.name === 'TimeoutError' ? `nothing came for ${stallMs} ms` : cause.message || cause.name;
}
