import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { NarrowsError } from '../../src/errors.ts';
import { algorithmOf, digestOf, hexOf, isDigest, matches, parseDigest } from '../../src/oci/digest.ts';
import { accepts, baseType, isMediaType, mediaTypes, namedIn } from '../../src/oci/media-types.ts';
import {
  companionTag,
  isRepositoryName,
  isTag,
  parseCompanionTag,
  parseImageName,
  parseReference,
  parseRepositoryName,
  parseTag,
  referenceText,
} from '../../src/oci/reference.ts';
import { bent, digestTexts, hex, nearly, readOr, repositoryNames, tagTexts, tryMany } from '../fixtures/fuzz.ts';

const lower = 'abcdefghijklmnopqrstuvwxyz';
const digits = '0123456789';
const consistsOf = (text: string, characters: string) => Array.from(text).every((one) => characters.includes(one));
const isOfKind =
  (...kinds: string[]) =>
  (error: unknown) =>
    error instanceof NarrowsError && kinds.includes(error.kind);

/** The grammar, read by hand (image-spec descriptor.md, "Registered algorithms"). */
function isDigestByHand(text: string): boolean {
  const [algorithm = '', encoded = '', ...more] = text.split(':');
  const length = { sha256: 64, sha512: 128 }[algorithm];
  return more.length === 0 && encoded.length === length && consistsOf(encoded, hex);
}

void t.test('25. a digest is what the grammar says and nothing else, with nothing in it that a path knows', (t) => {
  let accepted = 0;
  const property = fc.property(nearly(digestTexts), (text) => {
    const digest = readOr(() => parseDigest(text), isOfKind('digestInvalid'));
    if ((digest !== undefined) !== isDigestByHand(text) || isDigest(text) !== isDigestByHand(text)) return false;
    if (digest === undefined) return true;
    accepted++;
    const isPlain = consistsOf(hexOf(digest), hex) && consistsOf(digest, `${hex}hs:`);
    return digest === text && isPlain && `${algorithmOf(digest)}:${hexOf(digest)}` === text;
  });
  tryMany(t, property);
  t.ok(accepted > 0, `${accepted} were digests`);
  t.end();
});

void t.test('25. the digest of bytes is theirs alone', (t) => {
  const property = fc.property(
    fc.uint8Array({ minLength: 1, maxLength: 100 }),
    fc.constantFrom('sha256' as const, 'sha512' as const),
    fc.nat(99),
    fc.integer({ min: 1, max: 255 }),
    (bytes, algorithm, at, change) => {
      const digest = digestOf(bytes, algorithm);
      const other = Uint8Array.from(bytes, (byte, index) => (index === at % bytes.length ? byte ^ change : byte));
      const isRight = digest === `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
      return isRight && parseDigest(digest) === digest && matches(bytes, digest) && !matches(other, digest);
    },
  );
  tryMany(t, property);
  t.end();
});

const isSeparator = (between: string) => ['.', '_', '__'].includes(between) || /^-+$/.test(between);

/** distribution-spec, "Pulling manifests": what stands between letters and digits decides. */
function isNameByHand(text: string): boolean {
  return (
    text.length <= 255 &&
    text.split('/').every((component) => {
      const between = component.split(/[a-z0-9]+/);
      const [first, last] = [between.shift(), between.pop()];
      return first === '' && last === '' && between.every(isSeparator);
    })
  );
}

void t.test('24. a repository name is what the specification says and nothing else, and stays as it is', (t) => {
  const long = fc
    .tuple(repositoryNames, fc.integer({ min: 230, max: 256 }))
    .map(([name, length]) => name.padEnd(length, 'x'));
  let accepted = 0;
  const property = fc.property(nearly(fc.oneof({ weight: 9, arbitrary: repositoryNames }, long)), (text) => {
    const name = readOr(() => parseRepositoryName(text), isOfKind('nameInvalid'));
    if (name !== undefined) accepted++;
    return isRepositoryName(text) === isNameByHand(text) && name === (isNameByHand(text) ? text : undefined);
  });
  tryMany(t, property);
  t.ok(accepted > 0, `${accepted} were names`);
  t.end();
});

function isTagByHand(text: string): boolean {
  const letters = lower + lower.toUpperCase() + digits;
  const isFine = text.length >= 1 && text.length <= 128 && consistsOf(text, `${letters}._-`);
  return isFine && !text.startsWith('.') && !text.startsWith('-');
}

void t.test('24. a reference is a tag or a digest, as it is written', (t) => {
  const counts = { tag: 0, digest: 0 };
  const property = fc.property(nearly(fc.oneof(tagTexts, digestTexts)), (text) => {
    const reference = readOr(() => parseReference(text), isOfKind('digestInvalid', 'manifestUnknown'));
    const tag = readOr(() => parseTag(text), isOfKind('manifestUnknown'));
    if (isTag(text) !== isTagByHand(text) || tag !== (isTagByHand(text) ? text : undefined)) return false;
    if (!reference) return !isTagByHand(text) && !isDigestByHand(text);
    counts[reference.kind]++;
    const isRightKind = reference.kind === 'tag' ? isTagByHand(text) : isDigestByHand(text);
    return isRightKind && referenceText(reference) === text;
  });
  tryMany(t, property);
  t.ok(counts.tag > 0 && counts.digest > 0, JSON.stringify(counts));
  t.end();
});

void t.test('a companion tag leads back to its digest, and no other tag is one', (t) => {
  const suffixes = fc.stringMatching(/^(?:\.[a-z0-9._-]{1,20})?$/);
  const property = fc.property(digestTexts, suffixes, (text, suffix) => {
    const subject = parseDigest(text);
    const tag = companionTag(subject, suffix);
    const read = parseCompanionTag(tag);
    const isWhole = algorithmOf(subject) === 'sha256';
    return isTag(tag) && read?.suffix === suffix && read.subject === (isWhole ? subject : undefined);
  });
  tryMany(t, property);
  const real = fc
    .tuple(digestTexts, suffixes)
    .map(([text, suffix]) => companionTag(parseDigest(text), suffix))
    .map(String);
  const anyTag = fc.property(nearly(fc.oneof(real, tagTexts)).filter(isTag), (tag) => {
    const read = parseCompanionTag(tag);
    return !read?.subject || companionTag(read.subject, read.suffix) === tag;
  });
  tryMany(t, anyTag);
  t.end();
});

const imageNames = fc
  .tuple(repositoryNames, fc.option(tagTexts), fc.option(digestTexts))
  .map(([name, tag, digest]) => name + (tag === null ? '' : `:${tag}`) + (digest === null ? '' : `@${digest}`));

void t.test('24. an image name is its parts, and no part of it is passed over', (t) => {
  let accepted = 0;
  const tailed = fc
    .tuple(imageNames, fc.constantFrom('@', ':', '@sha256', '@x/../y'))
    .map(([name, tail]) => name + tail);
  const property = fc.property(nearly(fc.oneof({ weight: 9, arbitrary: imageNames }, tailed)), (text) => {
    const image = readOr(() => parseImageName(text), isOfKind('nameInvalid', 'digestInvalid', 'manifestUnknown'));
    if (!image) return true;
    accepted++;
    const rest = text.slice(image.name.length);
    if (!isNameByHand(image.name) || !text.startsWith(image.name)) return false;
    const reference = referenceText(image.reference);
    if (image.reference.kind === 'tag') return rest === `:${reference}` || (rest === '' && reference === 'latest');
    if (rest === `@${reference}` || rest === `:${reference}`) return true;
    // With both, the digest decides.
    return (
      rest.startsWith(':') && rest.endsWith(`@${reference}`) && !rest.slice(0, -reference.length - 1).includes('@')
    );
  });
  tryMany(t, property);
  t.ok(accepted > 0, `${accepted} were image names`);
  t.end();
});

const types = [...Object.values(mediaTypes), 'text/html', 'image/*', 'application/*', '*/*'];
const spaces = fc.constantFrom('', '', ' ', '  ', '\t');
const weights = fc.constantFrom(
  '',
  'q=1',
  'q=0.5',
  'q=0.001',
  'q=1.000',
  'charset=utf-8',
  'q=0',
  'q=0.',
  'q=0.000',
  'Q=0.0',
);

const acceptEntries = fc.uniqueArray(
  fc.record({ type: fc.constantFrom(...types), weight: weights, upper: fc.boolean(), space: spaces }),
  { selector: ({ type }) => type, maxLength: 8 },
);

const isRefused = (weight = '') => /^q=/i.test(weight) && Number(weight.slice(2)) === 0;

void t.test('Accept lets pass what the most telling of its entries lets pass', (t) => {
  const property = fc.property(acceptEntries, fc.constantFrom(...Object.values(mediaTypes)), (entries, wanted) => {
    const header = entries
      .map(({ type, weight, upper, space }) => {
        const written = upper ? type.toUpperCase() : type;
        return space + written + space + (weight && `;${space}${weight}`);
      })
      .join(',');
    const said = [wanted, 'application/*', '*/*'].map((type) => entries.find((entry) => entry.type === type));
    const decisive = said.find((entry) => entry !== undefined);
    const expected = entries.length === 0 || (decisive !== undefined && !isRefused(decisive.weight));
    if (accepts(header, wanted) !== expected) return false;
    const first = entries.find(({ type, weight }) => type.startsWith('application/vnd') && !isRefused(weight));
    return namedIn(header, Object.values(mediaTypes)) === first?.type;
  });
  tryMany(t, property);
  t.end();
});

void t.test('any Accept is read: what it names by itself is in it, and passes', (t) => {
  const headers = acceptEntries.map((entries) => entries.map(({ type, weight }) => `${type};${weight}`).join(', '));
  let named = 0;
  const property = fc.property(nearly(headers), fc.constantFrom(...types), (header, type) => {
    accepts(header, type);
    const found = namedIn(header, [mediaTypes.combined, mediaTypes.alternates]);
    if (found === undefined) return true;
    named++;
    return header.toLowerCase().includes(found) && accepts(header, found);
  });
  tryMany(t, property);
  t.ok(named > 0, `${named} named one`);
  t.end();
});

const isName = (name: string) =>
  name.length >= 1 &&
  name.length <= 127 &&
  consistsOf(name, `${lower}${digits}!#$&-^_.+`) &&
  consistsOf(name[0]!, lower + digits);

/** RFC 6838, 4.2: two restricted names. */
function isMediaTypeByHand(text: string): boolean {
  const names = text.split('/');
  return names.length === 2 && names.every(isName);
}

void t.test('a media type is two restricted names: nothing that would end a header, or begin another', (t) => {
  const names = fc.constantFrom('a', '-a', ' a', 'a ', 'a;', 'a,', 'A', '', 'b'.repeat(127), 'b'.repeat(128));
  const plain = fc.oneof(
    fc.constantFrom<string>(...Object.values(mediaTypes)),
    fc.tuple(names, names).map((pair) => pair.join('/')),
  );
  const property = fc.property(
    nearly(plain),
    fc.constantFrom('', ' ; charset=utf-8', ';', '; a=b; c=d'),
    (text, tail) => {
      if (isMediaType(text) !== isMediaTypeByHand(text)) return false;
      return !isMediaType(text) || baseType(` ${text.toUpperCase()}${tail}`) === text;
    },
  );
  tryMany(t, property);
  t.end();
});

const refused = (read: () => unknown) => readOr(read, (error) => error instanceof NarrowsError) === undefined;

void t.test('25. a digest with a path behind it is refused wherever one is read', (t) => {
  const climbing = bent(digestTexts).map((text) => text.replace(/[0-9a-f]{2}$/, '/../../x'));
  const property = fc.property(
    climbing.filter((text) => text.includes('/')),
    (text) => {
      return (
        refused(() => parseDigest(text)) &&
        refused(() => parseReference(text)) &&
        refused(() => parseImageName(`a@${text}`))
      );
    },
  );
  tryMany(t, property);
  t.end();
});
