import { NarrowsError } from '../errors.ts';
import { formatPlatformSet } from '../oci/platform.ts';
import type { PlatformSet } from '../oci/platform.ts';
import type { Route } from './request.ts';

/** An image that was asked to stay here, and in which set. */
export interface Holding {
  readonly set: string;
  readonly image: string;
  readonly platforms: readonly string[];
}

/** More would be a list for machines: the sentence is read where a pull has failed. */
const maxNamed = 3;

/**
 * What is not held while nobody else is asked: which platform of what, and what a set has of it instead.
 *
 * @param wanted what the caller runs, where that is known
 * @param servedBy the platforms that the digest is for, as far as they are known
 */
export function explainNotHeld(
  error: NarrowsError,
  repositoryKey: string,
  route: Route,
  wanted: PlatformSet | undefined,
  servedBy: readonly string[],
  holdings: readonly Holding[],
): NarrowsError {
  if (route.kind !== 'manifest' && route.kind !== 'blob') return error;
  const isTag = route.kind === 'manifest' && route.reference.kind === 'tag';
  const image = isTag ? `${repositoryKey}:${route.reference.tag}` : repositoryKey;
  const digest = route.kind === 'blob' ? route.digest : route.reference.kind === 'digest' ? route.reference.digest : '';
  const run = wanted === undefined || wanted === 'any' ? '' : formatPlatformSet(wanted);
  const platform = isTag ? run : servedBy.join(', ');
  const what = [digest, platform].filter(Boolean).join(' for ');
  const missing = what ? `${what} of ${image}` : image;
  return new NarrowsError(
    error.kind,
    `This mirror is offline and does not hold ${missing}; ${held(image, isTag, holdings)}.`,
    {
      cause: error,
    },
  );
}

function held(image: string, isTag: boolean, holdings: readonly Holding[]): string {
  const same = isTag ? holdings.filter((one) => one.image === image) : holdings;
  const named = same.slice(0, maxNamed).map(({ set, image: of, platforms }) => {
    const which = isTag ? 'it' : of;
    return `the set ${set} holds ${which} for ${platforms.includes('any') ? 'all platforms' : platforms.join(', ')}`;
  });
  if (named.length > 0) return named.join(', ');
  const others = [...new Set(holdings.map((one) => `${one.image} (set ${one.set})`))].slice(0, maxNamed);
  return others.length > 0
    ? `of this repository it holds ${others.join(', ')}`
    : 'no set here holds anything of this repository';
}
