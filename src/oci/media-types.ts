export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  combined: 'application/vnd.narrows.manifest.combined.v1+json',
  alternates: 'application/vnd.narrows.manifest.alternates.v1+json',
} as const;

/**
 * What is asked for upstream, whatever the client accepts: answers are shared between clients, so one client's
 * Accept must not decide what another is given.
 */
export const acceptManifests = [
  mediaTypes.ociIndex,
  mediaTypes.dockerList,
  mediaTypes.ociManifest,
  mediaTypes.dockerManifest,
  '*/*',
].join(', ');

export function isIndexType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerList;
}

export function isManifestType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociManifest || mediaType === mediaTypes.dockerManifest;
}

/** The documents of 2015: answered to those who name them, and taken from those who push them. */
export function isComposedType(mediaType: string): boolean {
  return mediaType === mediaTypes.combined || mediaType === mediaTypes.alternates;
}

export function isImageConfigType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociConfig || mediaType === mediaTypes.dockerConfig;
}

/** The type alone of a Content-Type, lower case: `a/b; charset=utf-8` gives `a/b`. */
export function baseType(contentType: string): string {
  return (contentType.split(';', 1)[0] ?? '').trim().toLowerCase();
}

// RFC 6838, 4.2. It becomes a header: what is no type does not get there.
const grammar = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$/;

export function isMediaType(text: string): boolean {
  return grammar.test(text);
}

/**
 * Does an Accept header let `mediaType` pass? Without a header everything does (RFC 9110, 12.5.1). Some clients send
 * one line, some a line for each type; node joins them with a comma.
 */
export function accepts(accept: string | undefined, mediaType: string): boolean {
  if (accept === undefined || accept.trim() === '') return true;
  const ranges = readAccept(accept);
  return ranges.get(mediaType) ?? ranges.get(`${mediaType.split('/', 1)[0]}/*`) ?? ranges.get('*/*') ?? false;
}

/** The first of `wanted` that an Accept header names by itself: no range, and not to refuse it. */
export function namedIn<T extends string>(accept: string | undefined, wanted: readonly T[]): T | undefined {
  const ranges = readAccept(accept ?? '');
  return [...ranges.keys()].find((type): type is T => wanted.includes(type as T) && ranges.get(type) === true);
}

function readAccept(accept: string): Map<string, boolean> {
  return new Map(
    accept.split(',').map((entry) => {
      const [range = '', ...parameters] = entry.split(';').map((part) => part.trim().toLowerCase());
      return [range, !parameters.some((parameter) => /^q=0(?:\.0{0,3})?$/.test(parameter))] as const;
    }),
  );
}
