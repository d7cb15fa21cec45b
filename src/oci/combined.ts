import { asObject } from './json.ts';
import type { Json, JsonObject } from './json.ts';
import { readSource } from './manifest.ts';
import type { Manifest } from './manifest.ts';
import { mediaTypes } from './media-types.ts';
import {
  besides,
  checkOneKind,
  indexLabels,
  isPlatformWord,
  maxParts,
  partJson,
  readLabels,
  readPart,
  readParts,
} from './part.ts';
import type { IndexToWrite, Part, PlatformImage } from './part.ts';
import { fit, formatPlatform, parsePlatform } from './platform.ts';
import type { Platform } from './platform.ts';

/**
 * The combined document of 2015: the layers of all platforms, found by walking the operating systems and then the
 * architectures of one.
 */
export interface Combined {
  /** The config of the primary platform. */
  readonly target: Part;
  /** In the order of the document; each platform once. */
  readonly images: readonly CombinedImage[];
  readonly labels: Readonly<Record<string, string>>;
  /** The JSON it was read from, unknown fields and all. */
  readonly source: JsonObject;
}

export interface CombinedImage {
  readonly platform: Platform;
  readonly layers: readonly Part[];
}

export type Traversal =
  | { readonly found: 'layers'; readonly platform: Platform; readonly layers: readonly Part[] }
  | { readonly found: 'os unknown'; readonly known: readonly string[] }
  | { readonly found: 'architecture unknown'; readonly known: readonly string[] };

const maxPlatforms = 256;
const maxLayers = 10 * maxParts;

/** @throws SyntaxError with the reason */
export function readCombined(bytes: Uint8Array): Combined {
  const source = readSource(bytes);
  checkOneKind(source);
  const { schemaVersion, mediaType, dependencies } = source;
  if (schemaVersion !== 2) throw new SyntaxError('its schemaVersion is not 2');
  if (mediaType !== undefined && mediaType !== mediaTypes.combined) throw new SyntaxError('its mediaType is another');
  if (!Array.isArray(dependencies)) throw new SyntaxError('it has no dependencies');
  if (dependencies.length > maxPlatforms) throw new SyntaxError(`it has more than ${maxPlatforms} dependencies`);
  const images = dependencies.flatMap((dependency, at) => readDependency(dependency, `dependencies[${at}]`));
  const seen = new Set<string>();
  for (const { platform } of images) {
    const name = formatPlatform(platform);
    if (seen.has(name)) throw new SyntaxError(`it has ${name} twice`);
    seen.add(name);
  }
  const systems = new Set(images.map(({ platform }) => platform.os));
  if (systems.size < dependencies.length) throw new SyntaxError('it has two dependencies for one operating system');
  if (images.length > maxPlatforms) throw new SyntaxError(`it has more than ${maxPlatforms} platforms`);
  if (images.reduce((sum, { layers }) => sum + layers.length, 0) > maxLayers) {
    throw new SyntaxError('it has too many layers');
  }
  return {
    target: readPart(source['target'], 'length', 'target'),
    images,
    labels: readLabels(source['labels'], 'the document'),
    source,
  };
}

function readDependency(value: Json, where: string): CombinedImage[] {
  const dependency = asObject(value);
  if (!dependency || typeof dependency['mediaType'] !== 'string') throw new SyntaxError(`${where} has no mediaType`);
  const systems = Object.entries(dependency).filter(([key, entry]) => asObject(entry) && !besides.has(key));
  const [os, ...others] = systems.map(([key]) => key);
  if (os === undefined || others.length > 0) throw new SyntaxError(`${where} is not of one operating system`);
  const architectures = Object.entries(asObject(dependency[os]) ?? {});
  if (architectures.length === 0) throw new SyntaxError(`${where} has no architecture for ${JSON.stringify(os)}`);
  return architectures.map(([architecture, layers]) => {
    const [name = '', variant = name, ...more] = architecture.split('/');
    const isSpelled = more.length === 0 && [os, name, variant].every(isPlatformWord);
    const platform = isSpelled ? parsePlatform(`${os}/${architecture}`) : undefined;
    const shown = JSON.stringify(`${os}/${architecture}`.slice(0, 80));
    if (!platform) throw new SyntaxError(`${where}: ${shown} is no platform`);
    return { platform, layers: readParts(layers, 'length', `${where}: ${shown}`) };
  });
}

/** The walk: is the operating system among the dependencies; if so, is the architecture in it; then the layers. */
export function traverse({ images }: Combined, wanted: Platform): Traversal {
  const ofSystem = images.filter(({ platform }) => platform.os === wanted.os);
  if (ofSystem.length === 0) {
    return { found: 'os unknown', known: [...new Set(images.map(({ platform }) => platform.os))] };
  }
  const ranked = ofSystem
    .map((image) => ({ ...image, step: fit(wanted, image.platform) }))
    .filter((image): image is CombinedImage & { step: number } => image.step !== undefined)
    .toSorted((one, other) => one.step - other.step);
  const [best] = ranked;
  if (best) return { found: 'layers', platform: best.platform, layers: best.layers };
  return { found: 'architecture unknown', known: ofSystem.map(({ platform }) => architectureKey(platform)) };
}

/** An index as a combined document; deterministic. `readIndexLabels` gives the index back, byte for byte. */
export function writeCombined({ bytes, mediaType, images, primary }: IndexToWrite): Buffer {
  const systems = [...new Set(images.map(({ platform }) => platform.os))];
  const document = {
    schemaVersion: 2,
    mediaType: mediaTypes.combined,
    target: partJson(primary.manifest.config, 'length'),
    dependencies: systems.map((os) => {
      const ofSystem = images.filter(({ platform }) => platform.os === os);
      return { mediaType: dependencyType(ofSystem[0]!.manifest), [os]: Object.fromEntries(layersOf(ofSystem)) };
    }),
    labels: indexLabels(bytes, mediaType),
  };
  return Buffer.from(JSON.stringify(document));
}

/** One key cannot tell apart what differs in its version alone: the first stands here, all of them in the index. */
function layersOf(images: readonly PlatformImage[]): Map<string, JsonObject[]> {
  const found = new Map<string, JsonObject[]>();
  for (const { platform, manifest } of images) {
    const key = architectureKey(platform);
    if (!found.has(key))
      found.set(
        key,
        manifest.layers.map((layer) => partJson(layer, 'length')),
      );
  }
  return found;
}

function architectureKey({ architecture, variant }: Platform): string {
  return variant ? `${architecture}/${variant}` : architecture;
}

/** Docker's type of then for images of Docker's types. */
function dependencyType({ mediaType }: Manifest): string {
  return mediaType === mediaTypes.dockerManifest
    ? 'application/vnd.docker.container.image.combined+json'
    : 'application/vnd.narrows.image.combined.v1+json';
}
