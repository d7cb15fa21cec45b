import t from 'tap';
import {
  acceptManifests,
  accepts,
  baseType,
  isComposedType,
  isImageConfigType,
  isIndexType,
  isManifestType,
  mediaTypes,
  namedIn,
} from '../../src/oci/media-types.ts';
import { containerdAccept } from '../fixtures/mirror.ts';

const { ociIndex, ociManifest, dockerList, dockerManifest } = mediaTypes;

/** What clients send for a tag, each header line joined to the next as node does. */
const clients: Record<string, string> = {
  containerd: containerdAccept,
  'Docker with graph drivers': [dockerList, dockerManifest, ociIndex, ociManifest].join(', '),
  'containers/image': [
    ociManifest,
    dockerManifest,
    'application/vnd.docker.distribution.manifest.v1+prettyjws',
    'application/vnd.docker.distribution.manifest.v1+json',
    dockerList,
    ociIndex,
  ].join(', '),
  'go-containerregistry': `application/vnd.docker.distribution.manifest.v1+json,application/vnd.docker.distribution.manifest.v1+prettyjws,${dockerManifest},${ociManifest},${dockerList},${ociIndex}`,
  regclient: [ociIndex, ociManifest, dockerList, dockerManifest, 'application/vnd.oci.artifact.manifest.v1+json'].join(
    ', ',
  ),
  'oras-go': `${dockerManifest}, ${dockerList}, ${ociManifest}, ${ociIndex}, application/vnd.oci.artifact.manifest.v1+json`,
};

void t.test('accepts: every known client takes both kinds of index and both kinds of manifest', (t) => {
  for (const [client, accept] of Object.entries(clients)) {
    for (const type of [ociIndex, ociManifest, dockerList, dockerManifest])
      t.ok(accepts(accept, type), `${client}: ${type}`);
  }
  t.end();
});

void t.test('accepts: follows what the header says', (t) => {
  const cases: [accept: string | undefined, mediaType: string, expected: boolean][] = [
    [undefined, ociIndex, true],
    ['', ociIndex, true],
    ['  ', ociIndex, true],
    ['*/*', ociIndex, true],
    ['application/*', ociIndex, true],
    ['text/*', ociIndex, false],
    [dockerManifest, ociIndex, false],
    [dockerManifest, dockerManifest, true],
    [`${dockerManifest},${dockerList}`, ociIndex, false],
    [`${ociManifest}, ${ociIndex}`, ociIndex, true],
    [ociIndex.toUpperCase(), ociIndex, true],
    [`${ociIndex};q=0.5`, ociIndex, true],
    [`${ociIndex} ; q=0.001`, ociIndex, true],
    [`${ociIndex};q=0`, ociIndex, false],
    [`${ociIndex};q=0.000, ${ociManifest}`, ociIndex, false],
    [`${ociIndex};charset=utf-8`, ociIndex, true],
    [`${ociIndex}x`, ociIndex, false],
    [`application/json, ${dockerManifest}`, dockerList, false],
    [`${ociManifest}, */*`, dockerList, true],
    [`${ociManifest}, */*;q=0`, dockerList, false],
    [', ,', ociIndex, false],
  ];
  for (const [accept, mediaType, expected] of cases) {
    t.equal(accepts(accept, mediaType), expected, `${accept ?? 'no header'} for ${mediaType}`);
  }
  t.end();
});

void t.test('accepts: a type that is refused by name is not let in by a wildcard', (t) => {
  t.equal(accepts(`${ociIndex};q=0, */*`, ociIndex), false);
  t.equal(accepts(`*/*, ${ociIndex};q=0`, ociIndex), false);
  t.equal(accepts(`application/*;q=0, ${ociIndex}`, ociIndex), true);
  t.end();
});

void t.test('acceptManifests: asks upstreams for all that any client takes', (t) => {
  for (const type of [ociIndex, ociManifest, dockerList, dockerManifest]) {
    t.ok(acceptManifests.split(', ').includes(type), type);
  }
  t.ok(accepts(acceptManifests, 'application/vnd.example.unheard-of+json'));
  t.end();
});

void t.test('each media type is of one kind', (t) => {
  const kinds = [isIndexType, isManifestType, isImageConfigType, isComposedType];
  for (const type of Object.values(mediaTypes)) {
    t.equal(kinds.filter((isKind) => isKind(type)).length, 1, type);
  }
  t.same([ociIndex, dockerList].map(isIndexType), [true, true]);
  t.same([ociManifest, dockerManifest].map(isManifestType), [true, true]);
  for (const type of ['', 'application/json', `${ociIndex};charset=utf-8`, 'application/vnd.oci.empty.v1+json']) {
    t.notOk(
      kinds.some((isKind) => isKind(type)),
      type,
    );
  }
  t.end();
});

void t.test('baseType: is the type alone, in lower case', (t) => {
  const cases: [contentType: string, expected: string][] = [
    ['application/json', 'application/json'],
    ['Application/JSON; charset=utf-8', 'application/json'],
    [` ${ociIndex} ;x=1`, ociIndex],
    ['', ''],
    [';', ''],
  ];
  for (const [contentType, expected] of cases) t.equal(baseType(contentType), expected, contentType);
  t.end();
});

void t.test('namedIn: a type that the header names by itself, the first where it names several', (t) => {
  const { combined, alternates } = mediaTypes;
  const cases: [accept: string | undefined, expected: string | undefined][] = [
    [combined, combined],
    [alternates, alternates],
    [`${ociIndex}, ${alternates}`, alternates],
    [`${alternates}, ${combined}`, alternates],
    [`${combined},${alternates}`, combined],
    [combined.toUpperCase(), combined],
    [` ${combined} ; q=0.5`, combined],
    [`${combined};q=0.001`, combined],
    [`${combined};charset=utf-8, */*;q=0.1`, combined],
    [undefined, undefined],
    ['', undefined],
    [' ', undefined],
    ['*/*', undefined],
    ['application/*', undefined],
    [`${ociIndex}, application/*, */*`, undefined],
    [containerdAccept, undefined],
    [`${combined}x`, undefined],
    [combined.slice(0, -1), undefined],
    [combined.replace('+json', ''), undefined],
    ['application/vnd.narrows.*', undefined],
    [`${combined};q=0`, undefined],
    [`${combined};q=0.000, */*`, undefined],
    [`${combined};q=0, ${alternates}`, alternates],
    [`*/*, ${alternates} ;Q=0`, undefined],
  ];
  for (const [accept, expected] of cases) {
    t.equal(namedIn(accept, [combined, alternates]), expected, accept ?? 'no header');
  }
  t.equal(namedIn(`${ociIndex}, ${combined}`, [combined]), combined, 'what is not asked for is passed over');
  t.equal(namedIn(combined, []), undefined);
  t.equal(namedIn('__proto__, constructor', [combined]), undefined);
  t.end();
});

void t.test('isComposedType: the two documents of 2015 and nothing else', (t) => {
  t.same(
    Object.values(mediaTypes).filter((type) => isComposedType(type)),
    [mediaTypes.combined, mediaTypes.alternates],
  );
  t.notOk(isComposedType(''));
  t.end();
});
