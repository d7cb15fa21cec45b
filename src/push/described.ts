import { writeAlternates, readAlternates } from '../oci/alternates.ts';
import type { Alternates } from '../oci/alternates.ts';
import { readCombined, writeCombined } from '../oci/combined.ts';
import type { Combined, CombinedImage } from '../oci/combined.ts';
import { digestOf } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { asObject, parseJson } from '../oci/json.ts';
import type { JsonObject } from '../oci/json.ts';
import { isPlatform, readConfigPlatform, readDescriptor } from '../oci/manifest.ts';
import type { Descriptor, Manifest } from '../oci/manifest.ts';
import { mediaTypes } from '../oci/media-types.ts';
import { platformImages, readIndexLabels } from '../oci/part.ts';
import type { CarriedIndex, IndexToWrite, Part } from '../oci/part.ts';
import { formatPlatform, platformJson } from '../oci/platform.ts';
import type { Platform } from '../oci/platform.ts';
import { invalid } from './pushed.ts';
import type { Shelf } from './shelf.ts';

/** Something that a document of 2015 describes, written in the form of today. */
export interface Made {
  readonly kind: 'manifest' | 'blob';
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly mediaType: string;
  /** What it lists. */
  readonly uses: readonly Digest[];
}

/** The images of a document of 2015, as an index lists them, and those of them that were not there before. */
export interface DescribedImages {
  readonly manifests: readonly Descriptor[];
  readonly made: readonly Made[];
}

/** @throws NarrowsError manifestInvalid */
export async function imagesOfCombined(document: Combined, shelf: Shelf): Promise<DescribedImages> {
  const carried = readIndexLabels(document.labels);
  if (carried) {
    const again = readCombined(writeCombined(await toWrite(carried, document.target, shelf)));
    if (summaryOfCombined(again) !== summaryOfCombined(document)) throw contradiction();
    return { manifests: carried.index.manifests, made: [] };
  }
  const config = await shelf.bytes(document.target.digest);
  const said = readConfigPlatform(config);
  const described = document.images.map((image) => {
    // The document has no word for a version.
    const isOwn = said && formatPlatform({ ...said, osVersion: '' }) === formatPlatform(image.platform);
    const own = isOwn ? { config: document.target, blobs: [] } : configFor(config, document.target, image);
    return { ...image, ...own };
  });
  const made = described.map((image) => ({ ...image, manifest: manifestOf(image.config, image.layers) }));
  return {
    manifests: made.map(({ manifest, platform }) => childOf(manifest, platform)),
    made: made.flatMap(({ blobs, manifest }) => [...blobs, manifest]),
  };
}

/** @throws NarrowsError manifestInvalid */
export async function imagesOfAlternates(document: Alternates, shelf: Shelf): Promise<DescribedImages> {
  const carried = readIndexLabels(document.labels);
  if (carried) {
    const again = readAlternates(writeAlternates(await toWrite(carried, document.target, shelf)));
    if (summaryOfAlternates(again) !== summaryOfAlternates(document)) throw contradiction();
    return { manifests: carried.index.manifests, made: [] };
  }
  const primary = manifestOf(document.target, document.dependencies);
  const others = document.alternates.map(({ mediaType, digest, bytes, platform }) =>
    readDescriptor({ mediaType, digest, size: bytes, platform: platformJson(platform) })!,
  );
  return { manifests: [childOf(primary, document.target.platform), ...others], made: [primary] };
}

/** The index that a document carries, with what is here of its images, to compare the one with the other. */
async function toWrite({ bytes, index }: CarriedIndex, target: Part, shelf: Shelf): Promise<IndexToWrite> {
  const manifests = new Map<Digest, Manifest>();
  for (const { digest, mediaType, platform } of index.manifests) {
    const document = isPlatform(platform) ? await shelf.document(digest, mediaType) : undefined;
    if (document?.kind === 'manifest') manifests.set(digest, document);
  }
  const images = platformImages(index, (digest) => manifests.get(digest));
  const primary = images.find(({ manifest }) => manifest.config.digest === target.digest);
  if (!primary) throw contradiction();
  return { bytes, mediaType: index.mediaType, images, primary };
}

function contradiction(): Error {
  return invalid('the index in its labels says something else than the document');
}

function summaryOfCombined({ target, images }: Combined): string {
  const lines = images.map(({ platform, layers }) => lineOf(platform, layers));
  return [target.digest, ...lines.toSorted(byText)].join('\n');
}

function summaryOfAlternates({ target, dependencies, alternates }: Alternates): string {
  const lines = alternates.map((alternate) => lineOf(alternate.platform, [alternate]));
  return [target.digest, lineOf(target.platform, dependencies), ...lines.toSorted(byText)].join('\n');
}

function lineOf(platform: Platform, parts: readonly Part[]): string {
  return [formatPlatform(platform), ...parts.map(({ digest }) => digest)].join(' ');
}

function byText(one: string, other: string): number {
  return one < other ? -1 : Number(one > other);
}

/** Layer types of then that no runtime knows now. */
const newTypes = new Map([
  ['application/vnd.docker.container.image.rootfs.diff+x-tar', 'application/vnd.docker.image.rootfs.diff.tar'],
  ['application/vnd.docker.container.image.rootfs.diff+x-gtar', 'application/vnd.docker.image.rootfs.diff.tar.gzip'],
]);

const plainTars = new Set(['application/vnd.docker.image.rootfs.diff.tar', 'application/vnd.oci.image.layer.v1.tar']);

function typeOf({ mediaType }: Part): string {
  return newTypes.get(mediaType) ?? mediaType;
}

function manifestOf(config: Part, layers: readonly Part[]): Made {
  const isDocker = config.mediaType === mediaTypes.dockerConfig;
  const mediaType = isDocker ? mediaTypes.dockerManifest : mediaTypes.ociManifest;
  const document = { schemaVersion: 2, mediaType, config: descriptorOf(config), layers: layers.map(descriptorOf) };
  const uses = [config, ...layers].map(({ digest }) => digest);
  return { kind: 'manifest', mediaType, uses, ...contentOf(document) };
}

function descriptorOf(part: Part): JsonObject {
  return { mediaType: typeOf(part), digest: part.digest, size: part.bytes };
}

function contentOf(document: JsonObject): { bytes: Buffer; digest: Digest } {
  const bytes = Buffer.from(JSON.stringify(document));
  return { bytes, digest: digestOf(bytes) };
}

function childOf({ mediaType, digest, bytes }: Made, platform: Platform): Descriptor {
  return readDescriptor({ mediaType, digest, size: bytes.length, platform: platformJson(platform) })!;
}

/**
 * The document has one config for all platforms. What differs is the platform and the layers, and the digest of a
 * layer that is a plain tar is its own diff id.
 *
 * @throws NarrowsError manifestInvalid where the layers are compressed
 */
function configFor(bytes: Buffer, target: Part, { platform, layers }: CombinedImage): { config: Part; blobs: Made[] } {
  const config = asObject(parseJson(bytes));
  if (!config || !layers.every((layer) => plainTars.has(typeOf(layer)))) {
    throw invalid(
      `its config is not for ${formatPlatform(platform)}, and one can be made only for layers that are plain tars; push that platform's manifest`,
    );
  }
  const own = new Set(['history', 'variant', 'os.version', 'os.features']);
  const rest = Object.fromEntries(Object.entries(config).filter(([key]) => !own.has(key)));
  const diffIds = layers.map(({ digest }) => digest);
  const made = contentOf({ ...rest, ...platformJson(platform), rootfs: { type: 'layers', diff_ids: diffIds } });
  const blob: Made = { kind: 'blob', mediaType: target.mediaType, uses: [], ...made };
  return { config: { ...target, digest: made.digest, bytes: made.bytes.length }, blobs: [blob] };
}
