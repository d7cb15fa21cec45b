import t from 'tap';
import { parseDigest } from '../../src/oci/digest.ts';
import {
  companionTag,
  isRepositoryName,
  parseCompanionTag,
  parseReference,
  parseRepositoryName,
  referenceText,
} from '../../src/oci/reference.ts';
import type { Tag } from '../../src/oci/reference.ts';

const hex = '0123456789abcdef'.repeat(4);
const sha256 = parseDigest(`sha256:${hex}`);
const sha512 = parseDigest(`sha512:${hex}${hex}`);
const asTag = (text: string) => text as Tag;

void t.test('parseRepositoryName: takes every name that the specification allows', (t) => {
  const names = [
    'a',
    'nginx',
    'library/nginx',
    '0/1/2',
    'a.b/c_d/e__f/g-h/i---j',
    'ghcr.io/org/app',
    'team/manifests',
    'blobs/tags/list',
    'a'.repeat(255),
    Array.from({ length: 128 }, () => 'a').join('/'),
  ];
  for (const name of names) t.equal(parseRepositoryName(name), name);
  t.end();
});

void t.test('parseRepositoryName: anything else is NAME_INVALID', (t) => {
  const names: Record<string, string> = {
    empty: '',
    'upper case': 'Library/nginx',
    'a space': 'library/ng inx',
    'an empty part': 'library//nginx',
    'a slash before': '/library/nginx',
    'a slash behind': 'library/nginx/',
    'one dot': './nginx',
    'two dots': '../nginx',
    'two dots inside': 'p/../q',
    'an escape': 'library%2fnginx',
    'escaped dots': '%2e%2e/nginx',
    'a backslash': 'library\\nginx',
    'a semicolon': 'library;x/nginx',
    'a port': 'localhost:5000/nginx',
    NUL: 'library/nginx\0',
    'a line break': 'library/nginx\n',
    'a separator before': '.library/nginx',
    'a separator behind': 'library-/nginx',
    'three underscores': 'a___b',
    'two dots between': 'a..b',
    'mixed separators': 'a._b',
    'not ASCII': 'bücher/nginx',
    'a letter that only looks like one': 'lіbrary/nginx',
    __proto__: '__proto__',
    '256 characters': 'a'.repeat(256),
  };
  for (const [what, name] of Object.entries(names)) {
    t.notOk(isRepositoryName(name), what);
    t.throws(() => parseRepositoryName(name), { kind: 'nameInvalid', code: 'NAME_INVALID', status: 400 }, what);
  }
  t.end();
});

void t.test('parseReference: a text with a colon is a digest, whole and right', (t) => {
  for (const digest of [sha256, sha512]) {
    const reference = parseReference(digest);
    t.same(reference, { kind: 'digest', digest });
    t.equal(referenceText(reference), digest);
  }
  for (const text of ['sha256:abc', `md5:${hex}`, `sha256:../${hex.slice(3)}`, ':', `${sha256}:x`, `latest:${hex}`]) {
    t.throws(() => parseReference(text), { kind: 'digestInvalid', code: 'DIGEST_INVALID', status: 400 }, text);
  }
  t.end();
});

void t.test('parseReference: what the tag grammar allows is a tag', (t) => {
  const tags = [
    'latest',
    '1',
    '_',
    '1.31-alpine-slim',
    'V2_RC.1',
    'list',
    '__proto__',
    'a'.repeat(128),
    `sha256-${hex}`,
  ];
  for (const tag of tags) {
    const reference = parseReference(tag);
    t.same(reference, { kind: 'tag', tag });
    t.equal(referenceText(reference), tag);
  }
  t.end();
});

void t.test('parseReference: what can be no tag is unknown, not a mistake', (t) => {
  const texts = [
    '',
    '.',
    '..',
    '.hidden',
    '-x',
    'a b',
    'a+b',
    'a%20b',
    'a;b',
    'a\0',
    'a\n',
    'ünicode',
    'a@b',
    'a'.repeat(129),
  ];
  for (const text of texts) {
    t.throws(
      () => parseReference(text),
      { kind: 'manifestUnknown', code: 'MANIFEST_UNKNOWN', status: 404 },
      JSON.stringify(text),
    );
  }
  t.end();
});

void t.test('parseCompanionTag: names the digest that signatures and referrers hang on', (t) => {
  const cases: [tag: string, suffix: string][] = [
    [`sha256-${hex}`, ''],
    [`sha256-${hex}.sig`, '.sig'],
    [`sha256-${hex}.att`, '.att'],
    [`sha256-${hex}.sbom`, '.sbom'],
    [`sha256-${hex}.cosign.bundle-2`, '.cosign.bundle-2'],
  ];
  for (const [tag, suffix] of cases) t.same(parseCompanionTag(asTag(tag)), { subject: sha256, suffix });
  t.end();
});

void t.test('parseCompanionTag: an ordinary tag names no digest', (t) => {
  const tags = [
    'latest',
    'sha256',
    `sha256-${hex.slice(1)}`,
    `sha256-${hex}0`,
    `sha256-${hex.toUpperCase()}`,
    `sha256-${hex}sig`,
    `sha256-${hex}.`,
    `sha1-${hex.slice(0, 40)}`,
    `x-sha256-${hex}`,
  ];
  for (const tag of tags) t.equal(parseCompanionTag(asTag(tag)), undefined, tag);
  t.end();
});

void t.test('companionTag: is the referrers tag of the specification, its hex cut to 64 digits', (t) => {
  t.equal(companionTag(sha256, ''), `sha256-${hex}`);
  t.equal(companionTag(sha256, '.sig'), `sha256-${hex}.sig`);
  t.equal(companionTag(sha512, ''), `sha512-${hex}`);
  t.end();
});

void t.test('companionTag: what parseCompanionTag read is written again', (t) => {
  for (const suffix of ['', '.sig', '.att', '.sbom']) {
    const tag = companionTag(sha256, suffix);
    t.same(parseReference(tag), { kind: 'tag', tag });
    t.same(parseCompanionTag(tag), { subject: sha256, suffix });
  }
  t.end();
});
