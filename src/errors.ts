/**
 * The table of everything that can go wrong: its name in the code, the code a client reads, and the HTTP status.
 * Codes are those of the OCI distribution specification ("Error Codes") where it has one; `UNAVAILABLE` and `UNKNOWN`
 * are those that registries have always used for trouble behind them.
 *
 * Only what is truly unknown is a 404: what asks for a tag or a signature takes a "not found" for an answer.
 */
export const errors = {
  blobUnknown: { code: 'BLOB_UNKNOWN', status: 404 },
  manifestUnknown: { code: 'MANIFEST_UNKNOWN', status: 404 },
  manifestNotHeld: { code: 'MANIFEST_UNKNOWN', status: 404 },
  blobNotHeld: { code: 'BLOB_UNKNOWN', status: 404 },
  nameUnknown: { code: 'NAME_UNKNOWN', status: 404 },
  routeUnknown: { code: 'NAME_UNKNOWN', status: 404 },
  nameInvalid: { code: 'NAME_INVALID', status: 400 },
  digestInvalid: { code: 'DIGEST_INVALID', status: 400 },
  platformInvalid: { code: 'UNSUPPORTED', status: 400 },
  queryInvalid: { code: 'UNSUPPORTED', status: 400 },
  methodNotAllowed: { code: 'UNSUPPORTED', status: 405 },
  rangeNotSatisfiable: { code: 'SIZE_INVALID', status: 416 },
  manifestInvalid: { code: 'MANIFEST_INVALID', status: 400 },
  manifestBlobUnknown: { code: 'MANIFEST_BLOB_UNKNOWN', status: 400 },
  sizeInvalid: { code: 'SIZE_INVALID', status: 400 },
  tooLarge: { code: 'SIZE_INVALID', status: 413 },
  uploadUnknown: { code: 'BLOB_UPLOAD_UNKNOWN', status: 404 },
  uploadInvalid: { code: 'BLOB_UPLOAD_INVALID', status: 400 },
  uploadOutOfOrder: { code: 'BLOB_UPLOAD_INVALID', status: 416 },
  unauthorized: { code: 'UNAUTHORIZED', status: 401 },
  denied: { code: 'DENIED', status: 403 },
  rateLimited: { code: 'TOOMANYREQUESTS', status: 429 },
  overloaded: { code: 'TOOMANYREQUESTS', status: 503 },
  draining: { code: 'UNAVAILABLE', status: 503 },
  issuerUnavailable: { code: 'UNAVAILABLE', status: 503 },
  storeUnavailable: { code: 'UNAVAILABLE', status: 503 },
  upstreamRefused: { code: 'UNAVAILABLE', status: 502 },
  upstreamUnusable: { code: 'UNAVAILABLE', status: 502 },
  upstreamManifestInvalid: { code: 'MANIFEST_INVALID', status: 502 },
  upstreamUnavailable: { code: 'UNAVAILABLE', status: 503 },
  upstreamTimeout: { code: 'UNAVAILABLE', status: 504 },
  loopDetected: { code: 'UNAVAILABLE', status: 508 },
  internal: { code: 'UNKNOWN', status: 500 },
} as const satisfies Record<string, { code: string; status: number }>;

export type ErrorName = keyof typeof errors;

export interface ErrorOptionsOf {
  cause?: unknown;
  /** Machine-readable rest of the story, as the specification's `detail`. */
  detail?: unknown;
  /** Whole seconds after which asking again makes sense; becomes `Retry-After`. */
  retryAfterS?: number;
  headers?: Record<string, string>;
}

/** The one error class: everything that a client is told passes through it. */
export class NarrowsError extends Error {
  readonly kind: ErrorName;
  readonly detail: unknown;
  readonly retryAfterS: number | undefined;
  readonly headers: Record<string, string>;

  /** @param message one sentence that says what to do, without secrets: clients print it */
  constructor(kind: ErrorName, message: string, options: ErrorOptionsOf = {}) {
    super(message, { cause: options.cause });
    this.name = 'NarrowsError';
    this.kind = kind;
    this.detail = options.detail;
    this.retryAfterS = options.retryAfterS;
    this.headers = options.headers ?? {};
  }

  /** The same with more headers; a new one, for one failure may be told to many callers. */
  withHeaders(headers: Record<string, string>): NarrowsError {
    const { kind, message, cause, detail, retryAfterS } = this;
    const more = { cause, detail, headers: { ...headers, ...this.headers } };
    return new NarrowsError(kind, message, { ...more, ...(retryAfterS !== undefined && { retryAfterS }) });
  }

  get status(): number {
    return errors[this.kind].status;
  }

  get code(): string {
    return errors[this.kind].code;
  }
}

export function isKind(error: unknown, ...kinds: ErrorName[]): error is NarrowsError {
  return error instanceof NarrowsError && kinds.includes(error.kind);
}

/** Not here, while nobody else is asked: a mirror that is offline says so. */
export function isNotHeld(error: unknown): error is NarrowsError {
  return isKind(error, 'manifestNotHeld', 'blobNotHeld');
}

/** Trouble on the way to an answer, as opposed to an answer: what is held here may be served instead, marked stale. */
export function isUpstreamTrouble(error: unknown): error is NarrowsError {
  return isKind(
    error,
    'upstreamRefused',
    'upstreamUnusable',
    'upstreamUnavailable',
    'upstreamTimeout',
    'rateLimited',
    'overloaded',
    'loopDetected',
    'upstreamManifestInvalid',
  );
}
