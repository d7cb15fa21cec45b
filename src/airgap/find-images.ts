import { isKind } from '../errors.ts';
import { parseImageName } from '../oci/reference.ts';
import { placesOf } from './yaml-places.ts';
import type { Candidate, Sureness } from './yaml-places.ts';
import { notRendered, readYaml, syntaxError } from './yaml-tree.ts';
import type { Tree, YamlTrees } from './yaml-tree.ts';

/** An image that a text names, and where. */
export interface FoundImage {
  /** As written, trimmed, without a scheme and with the defaults of variables: `nginx:1.27`, `ghcr.io/org/app@sha256:…`. */
  readonly image: string;
  /** All the places, in the order of the text. */
  readonly places: readonly FoundPlace[];
}

export interface FoundPlace {
  readonly line: number;
  /** What it belongs to: `Deployment/web, container api`, `service db`, `image list`; empty for a plain list. */
  readonly what: string;
}

/** What looks like an image and cannot be fetched as it stands. */
export interface Unusable extends FoundPlace {
  readonly text: string;
  /** One short clause: `a template that has not been rendered`, `a variable without a value`, `no image name`. */
  readonly reason: string;
}

export interface Found {
  readonly images: readonly FoundImage[];
  readonly unusable: readonly Unusable[];
}

// A repository, a tag and a digest are shorter together; what aliases repeat shall not be read at length.
const maxLength = 600;
const shownLength = 160;

/**
 * Reads a list, one image a line, or YAML, and JSON with it.
 *
 * @throws SyntaxError with a line for a text that is neither a list nor YAML
 */
export function findImages(text: string): Found {
  const plain = text.replace(/^\uFEFF/, '');
  const lines = plain.split('\n').map((line) => line.replace(/(?:^|\s)#.*/s, '').trim());
  if (lines.every((line) => line === '' || isListed(line))) return collect(listed(lines));
  const trees = readYaml(plain);
  const prose = trees.roots.find(({ kind }) => kind === 'leaf');
  if (prose) throw notYaml(prose, trees, lines);
  return collect(placesOf(trees));
}

/** A text that is YAML because every text is: most likely a list with a mistake. */
function notYaml(prose: Tree, { roots }: YamlTrees, lines: readonly string[]): SyntaxError {
  if (prose.kind === 'leaf' && prose.text.startsWith('{{')) return notRendered(prose.line);
  const mistaken = roots.length > 1 ? prose.line : lines.findIndex((line) => line !== '' && !isListed(line)) + 1;
  return syntaxError(mistaken, 'neither one image alone nor YAML that could name some');
}

/** One word that neither YAML nor JSON would begin with, and no key. */
function isListed(line: string): boolean {
  return !/\s|^[[\]{}"'&*!|>%@`,?]|^-|^\.\.\.$|:$/.test(line) || /^\{\{\S*\}\}\S*$/.test(line);
}

function listed(lines: readonly string[]): readonly Candidate[] {
  return lines
    .map((text, index): Candidate => ({ text, line: index + 1, what: '', sureness: 'certain' }))
    .filter(({ text }) => text !== '');
}

function collect(candidates: readonly Candidate[]): Found {
  const images = new Map<string, FoundPlace[]>();
  const unusable: Unusable[] = [];
  // An anchor is met again at each of its aliases.
  const met = new Set<string>();
  // Merged keys come from where their anchor stands, which is further up.
  for (const candidate of candidates.toSorted((one, other) => one.line - other.line)) {
    const { line, what } = candidate;
    const verdict = judge(candidate);
    if (verdict === undefined) continue;
    const text = verdict.image ?? candidate.text.trim().slice(0, shownLength);
    const key = JSON.stringify([text, line, what]);
    if (met.has(key)) continue;
    met.add(key);
    if (verdict.image === undefined) {
      unusable.push({ text, line, what, reason: verdict.reason });
      continue;
    }
    const places = images.get(text);
    if (places) places.push({ line, what });
    else images.set(text, [{ line, what }]);
  }
  return { images: [...images].map(([image, places]) => ({ image, places })), unusable };
}

type Verdict =
  { readonly image: string; readonly reason?: never } | { readonly image?: never; readonly reason: string };

/** Undefined is no image, and nobody would have thought so. */
function judge({ text: written, sureness, refused }: Candidate): Verdict | undefined {
  const isCertain = sureness === 'certain';
  const isTold = isCertain || sureness === 'likely';
  if (written.length > maxLength) return isTold ? { reason: 'no image name' } : undefined;
  if (sureness !== 'argument' && written.includes('{{')) return { reason: 'a template that has not been rendered' };
  const valued = withDefaults(written.trim());
  if (valued === undefined) return sureness === 'argument' ? undefined : { reason: 'a variable without a value' };
  // An address elsewhere than where an image is run is that of a picture.
  const image = valued.replace(isCertain ? /^(?:docker|oci|https?):\/\// : /^(?:docker|oci):\/\//, '');
  // Istio's gateways: the injector puts its own image there, which nothing in the text tells.
  if (image === 'auto' && isCertain) return { reason: 'a place that the injector of Istio fills' };
  // `scratch` is what has no base; there is nothing to pull.
  if (image === '' || image === 'scratch') return undefined;
  if (!isCertain && !looksLikeImage(image, sureness)) return isTold && !isName(image) ? refusal(image) : undefined;
  if (isName(image)) return refused === undefined ? { image } : { reason: refused };
  return isTold ? refusal(image) : undefined;
}

function refusal(image: string): Verdict {
  return { reason: /^[\w.-]+:\d+\/./.test(image) ? 'a registry with a port' : 'no image name' };
}

function looksLikeImage(image: string, sureness: Sureness): boolean {
  const [host = '', ...rest] = image.split('/');
  const isHosted = rest.length > 0 && host.includes('.');
  const isPinned = image.includes('@') || rest.concat(rest.length > 0 ? [] : host).some((part) => part.includes(':'));
  if (sureness === 'argument') return isHosted && isPinned;
  // A picture, or the disk of a virtual machine.
  if (!isPinned && /\.(?:png|jpe?g|svg|gif|webp|ico|iso|img|qcow2|vmdk)$/.test(image)) return false;
  return isPinned || isHosted || (sureness === 'likely' && rest.length > 0);
}

function isName(text: string): boolean {
  try {
    parseImageName(text);
    return true;
  } catch (error) {
    if (isKind(error, 'nameInvalid', 'digestInvalid', 'manifestUnknown')) return false;
    throw error;
  }
}

/**
 * The variables of compose, and of what took over its spelling; undefined where one has no default. The innermost go
 * first: a default may be made of variables.
 */
function withDefaults(text: string): string | undefined {
  // `$$` is a dollar sign, which must not begin a variable.
  let left = text.replaceAll('$$', '\0');
  for (let before = ''; before !== left;) {
    before = left;
    left = left.replace(/\$\{\w+(?::?([-=+])([^{}$]*))?\}/g, (whole, operator?: string, word?: string) => {
      if (operator === undefined) return whole;
      return operator === '+' ? '' : (word ?? '');
    });
  }
  return /\$[\w{(]/.test(left) ? undefined : left.replaceAll('\0', '$');
}
