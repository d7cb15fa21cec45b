import { readFile, stat } from 'node:fs/promises';
import { findImages } from '../airgap/find-images.ts';
import { imageName } from '../airgap/image-tree.ts';
import type { Wanted } from '../airgap/image-tree.ts';
import { NarrowsError } from '../errors.ts';
import type { PlatformSet } from '../oci/platform.ts';
import { parseImageName, parseRepositoryName } from '../oci/reference.ts';
import type { Reader } from '../pull/reader.ts';
import { filesBelow } from './files-below.ts';
import { CommandError } from './io.ts';
import type { Io } from './io.ts';
import { formatCount } from './show.ts';

export interface ImageFlags {
  readonly file?: string[];
  readonly referrers: boolean;
}

/** An image that a command is about, and where that was said. */
export interface Listed {
  readonly image: string;
  /** `web.yaml:12 Deployment/web, container api`; empty for the command line. */
  readonly places: readonly string[];
}

/** What the arguments and the files name, each image once, in the order of their first places. */
export interface ImageList {
  readonly images: readonly Listed[];
  /** What looks like an image and is none, a sentence each. */
  readonly unusable: readonly string[];
}

/** A folder's files that are read. */
const extensions = /\.(?:ya?ml|json|txt|list)$/;
const maxFileBytes = 16 * 1024 * 1024;

/** @throws CommandError for files that cannot be read, or are neither a list nor YAML */
export async function readImageList(args: readonly string[], flags: ImageFlags, io: Io): Promise<ImageList> {
  const places = new Map<string, string[]>(args.map((image) => [image, []]));
  const unusable: string[] = [];
  for (const file of flags.file ?? []) {
    for (const [name, text] of await readTexts(file, io)) {
      const found = find(name, text);
      for (const { image, places: lines } of found.images) {
        const all = places.get(image) ?? [];
        all.push(...lines.map(({ line, what }) => `${name}:${line}${what && ` ${what}`}`));
        places.set(image, all);
      }
      unusable.push(...found.unusable.map(({ line, text: shown, reason }) => `${name}:${line}: ${shown} is ${reason}`));
    }
  }
  return { images: [...places].map(([image, where]) => ({ image, places: where })), unusable };
}

function find(name: string, text: string) {
  try {
    return findImages(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CommandError(2, `${name}: ${error.message}`, { cause: error });
  }
}

/** A file, all that lie in a folder, or `-` for what comes in. */
async function readTexts(path: string, io: Io): Promise<[name: string, text: string][]> {
  if (path === '-') return [['stdin', await readInput(io)]];
  try {
    if (!(await stat(path)).isDirectory()) return [[path, await readText(path)]];
    const files = await filesBelow(path);
    const paths = files.filter((one) => one.isFile && extensions.test(one.path)).map((one) => one.path);
    if (paths.length === 0)
      throw new CommandError(2, `${path} holds no file that ends in .yaml, .yml, .json, .txt or .list.`);
    return await Promise.all(paths.map(async (file): Promise<[string, string]> => [file, await readText(file)]));
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError(2, `${path} cannot be read (${(error as NodeJS.ErrnoException).code}).`, { cause: error });
  }
}

async function readInput(io: Io): Promise<string> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of io.input()) {
    length += piece.length;
    if (length > maxFileBytes) throw new CommandError(2, 'Standard input is larger than 16 MiB.');
    pieces.push(Buffer.from(piece));
  }
  return Buffer.concat(pieces).toString();
}

async function readText(path: string): Promise<string> {
  if ((await stat(path)).size > maxFileBytes) throw new CommandError(2, `${path} is larger than 16 MiB.`);
  return readFile(path, 'utf8');
}

/** Where each image was found, by the name that it has in reports. */
export function placesOf({ images }: ImageList, reader: Pick<Reader, 'find'>): Map<string, readonly string[]> {
  return new Map(
    images.map(({ image, places }) => {
      const { name, reference } = parseImageName(image);
      return [imageName({ repository: parseRepositoryName(reader.find(name).key), reference }), places];
    }),
  );
}

/** The images as they are asked for. @throws CommandError 2 with every name that is no image of a registry that is configured */
export function wantedOf(
  { images }: ImageList,
  reader: Pick<Reader, 'find'>,
  platforms: PlatformSet,
  withReferrers: boolean,
): Wanted[] {
  const mistakes: string[] = [];
  const wanted = images.flatMap(({ image, places }): Wanted[] => {
    try {
      const { name, reference } = parseImageName(image);
      const repository = parseRepositoryName(reader.find(name).key);
      return [{ repository, reference, platforms, withReferrers }];
    } catch (error) {
      if (!(error instanceof NarrowsError)) throw error;
      mistakes.push(`  ${places[0] === undefined ? '' : `${places[0]}: `}${image}: ${error.message}`);
      return [];
    }
  });
  if (mistakes.length === 0) return wanted;
  throw new CommandError(2, `${formatCount(mistakes.length, 'image')} cannot be fetched:\n${mistakes.join('\n')}`);
}
