import t from 'tap';
import { NarrowsError, errors, isKind, isUpstreamTrouble } from '../src/errors.ts';
import type { ErrorName } from '../src/errors.ts';

const names = Object.keys(errors) as ErrorName[];

/** "Error Codes" of the distribution specification, and the two that registries have always had beside them. */
const codes = new Set(
  `BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID
  MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED UNSUPPORTED TOOMANYREQUESTS
  UNAVAILABLE UNKNOWN`.split(/\s+/),
);

void t.test('errors: every code is one that clients know', (t) => {
  for (const name of names) t.ok(codes.has(errors[name].code), `${name}: ${errors[name].code}`);
  t.end();
});

void t.test('errors: every status is an error, and only what is unknown is a 404', (t) => {
  for (const name of names) {
    const { status } = errors[name];
    t.ok(Number.isInteger(status) && status >= 400 && status <= 599, `${name}: ${status}`);
    // A push that names what is not here has a mistake in it; what it was sent to is there.
    const isUnknown = /(?:Unknown|NotHeld)$/.test(name) && name !== 'manifestBlobUnknown';
    t.equal(status === 404, isUnknown, `${name}: ${status}`);
  }
  t.end();
});

void t.test('NarrowsError: has the status and code of its kind, and its reason', (t) => {
  for (const name of names) {
    t.match(new NarrowsError(name, 'Do this.'), {
      name: 'NarrowsError',
      message: 'Do this.',
      kind: name,
      status: errors[name].status,
      code: errors[name].code,
      detail: undefined,
      retryAfterS: undefined,
      headers: {},
      cause: undefined,
    });
  }
  const cause = new Error('the reason');
  const options = { cause, detail: [1], retryAfterS: 7, headers: { allow: 'GET' } };
  const error = new NarrowsError('denied', 'No.', options);
  t.match(error, options);
  t.ok(error instanceof Error);
  t.match(error.stack, 'errors.test.ts');
  t.end();
});

void t.test('isKind: knows an error by its kind, and nothing else', (t) => {
  const error = new NarrowsError('blobUnknown', 'x');
  t.ok(isKind(error, 'blobUnknown'));
  t.ok(isKind(error, 'manifestUnknown', 'blobUnknown'));
  t.notOk(isKind(error, 'manifestUnknown'));
  t.notOk(isKind(error));
  for (const other of [new Error('x'), { kind: 'blobUnknown' }, 'blobUnknown', null, undefined]) {
    t.notOk(isKind(other, 'blobUnknown'));
  }
  t.end();
});

void t.test('isUpstreamTrouble: is trouble on the way, never an answer or the caller’s mistake', (t) => {
  const trouble = new Set<ErrorName>([
    'upstreamRefused',
    'upstreamUnusable',
    'upstreamManifestInvalid',
    'upstreamUnavailable',
    'upstreamTimeout',
    'rateLimited',
    'overloaded',
    'loopDetected',
  ]);
  for (const name of names) t.equal(isUpstreamTrouble(new NarrowsError(name, 'x')), trouble.has(name), name);
  for (const other of [new Error('x'), { kind: 'upstreamTimeout' }, undefined]) t.notOk(isUpstreamTrouble(other));
  for (const name of trouble) t.ok([429, 502, 503, 504, 508].includes(errors[name].status), name);
  t.end();
});
