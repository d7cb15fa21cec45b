import type { JsonObject } from './json.ts';
import { readSource } from './manifest.ts';
import { mediaTypes } from './media-types.ts';
import { checkOneKind, indexLabels, isPlatformWord, partJson, readLabels, readPart, readParts } from './part.ts';
import type { IndexToWrite, Part } from './part.ts';
import { formatPlatform, normalise } from './platform.ts';
import type { Platform } from './platform.ts';

/**
 * The alternates document of 2015: an image that is labelled primary, and alternatives beside it. What an entry is
 * for is said by its labels alone, so relabelling is all that it takes to make another the primary.
 */
export interface Alternates {
  /** The config of the primary. */
  readonly target: Alternate;
  /** The layers of the primary. */
  readonly dependencies: readonly Part[];
  /** The manifests of the others. */
  readonly alternates: readonly Alternate[];
  readonly labels: Readonly<Record<string, string>>;
  /** The JSON it was read from, unknown fields and all. */
  readonly source: JsonObject;
}

export interface Alternate extends Part {
  readonly platform: Platform;
}

/** @throws SyntaxError with the reason */
export function readAlternates(bytes: Uint8Array): Alternates {
  const source = readSource(bytes);
  checkOneKind(source);
  const { schemaVersion, mediaType } = source;
  if (schemaVersion !== 2) throw new SyntaxError('its schemaVersion is not 2');
  if (mediaType !== undefined && mediaType !== mediaTypes.alternates) throw new SyntaxError('its mediaType is another');
  const target = placed(readPart(source['target'], 'size', 'target'), 'target');
  const alternates = readParts(source['alternates'] ?? [], 'size', 'alternates').map((part, at) =>
    placed(part, `alternates[${at}]`),
  );
  const seen = new Set<string>();
  for (const { platform } of [target, ...alternates]) {
    const name = formatPlatform(platform);
    if (seen.has(name)) throw new SyntaxError(`it has ${name} twice`);
    seen.add(name);
  }
  return {
    target,
    dependencies: readParts(source['dependencies'], 'size', 'dependencies'),
    alternates,
    labels: readLabels(source['labels'], 'the document'),
    source,
  };
}

function placed(part: Part, where: string): Alternate {
  const { os = '', architecture = '', variant = '', 'os.version': osVersion = '' } = part.labels;
  const isPlatform = [os, architecture].every(isPlatformWord);
  if (!isPlatform || [variant, osVersion].some((text) => text !== '' && !isPlatformWord(text))) {
    throw new SyntaxError(`the labels of ${where} name no os and architecture`);
  }
  return { ...part, platform: normalise({ os, architecture, variant, osVersion }) };
}

/** An index as an alternates document; deterministic. `readIndexLabels` gives the index back, byte for byte. */
export function writeAlternates({ bytes, mediaType, images, primary }: IndexToWrite): Buffer {
  const document = {
    schemaVersion: 2,
    mediaType: mediaTypes.alternates,
    target: {
      ...partJson(primary.manifest.config, 'size'),
      labels: { ...labelsOf(primary.platform), 'narrows.manifest': primary.child.digest },
    },
    dependencies: primary.manifest.layers.map((layer) => partJson(layer, 'size')),
    alternates: images
      .filter((image) => image !== primary)
      .map(({ child, platform }) => ({ ...partJson(child, 'size'), labels: labelsOf(platform) })),
    labels: indexLabels(bytes, mediaType),
  };
  return Buffer.from(JSON.stringify(document));
}

function labelsOf({ os, architecture, variant, osVersion }: Platform): Record<string, string> {
  return { architecture, os, ...(variant && { variant }), ...(osVersion && { 'os.version': osVersion }) };
}
