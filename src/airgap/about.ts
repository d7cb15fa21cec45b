import { isKind } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { readDescriptor } from '../oci/manifest.ts';
import type { JsonObject } from '../oci/json.ts';
import { isIndexType } from '../oci/media-types.ts';
import { companionTag } from '../oci/reference.ts';
import type { Tag } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import { documentOf } from './gathering.ts';
import type { Gathering } from './gathering.ts';

/** The fallback of the referrers API, and what cosign calls its tags. */
const companionSuffixes = ['', '.sig', '.att', '.sbom'];
/** A signature of an SBOM is worth following, a signature of a signature of a signature is not. */
const maxDepth = 2;

/**
 * What is said about a digest, by the referrers API and by tags that are called after it: clients look at both, and
 * mirrors have lost it (NVIDIA cre #271).
 */
export async function followAbout(
  reader: Reader,
  gathering: Gathering,
  subject: Digest,
  platform: string,
  depth = 0,
): Promise<void> {
  const tags = companionSuffixes.map((suffix) => companionTag(subject, suffix));
  await Promise.all([
    followReferrers(reader, gathering, subject, platform, depth),
    ...tags.map((tag) => followCompanion(reader, gathering, tag, platform)),
  ]);
}

async function followReferrers(
  reader: Reader,
  gathering: Gathering,
  subject: Digest,
  platform: string,
  depth: number,
): Promise<void> {
  const { source, referrersFreshMs } = gathering;
  let listed: readonly JsonObject[] = [];
  try {
    listed = await gathering.ask(() => reader.referrers(source, subject, referrersFreshMs));
    gathering.addList(subject, listed);
  } catch (error) {
    gathering.note(error, platform);
  }
  await Promise.all(
    listed.map(async (entry) => {
      const child = readDescriptor(entry);
      if (!child) return;
      const { digest, size, mediaType } = child;
      const kind = isIndexType(mediaType) ? 'index' : 'manifest';
      if (!gathering.addReferrer({ digest, bytes: size, mediaType, kind, platform, isAbout: true })) return;
      await gathering.follow(child, platform, true);
      if (depth + 1 < maxDepth) await followAbout(reader, gathering, digest, platform, depth + 1);
    }),
  );
}

async function followCompanion(reader: Reader, gathering: Gathering, tag: Tag, platform: string): Promise<void> {
  try {
    const held = await gathering.ask(() => reader.tag(gathering.source, tag));
    if (!held) return;
    const { digest, mediaType } = held;
    const bytes = held.bytes.length;
    const document = documentOf(held);
    gathering.addDocument(held);
    gathering.addCompanion({ tag, digest, mediaType, bytes });
    const kind = document.kind === 'index' ? 'index' : 'manifest';
    gathering.add({ digest, bytes, mediaType, kind, platform, isAbout: true });
    await gathering.followDocument(document, platform, true);
  } catch (error) {
    // Offline, a tag that is not here is not known to exist.
    if (!isKind(error, 'manifestNotHeld')) gathering.note(error, platform);
  }
}
