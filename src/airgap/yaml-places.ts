import { maxDepth, syntaxError } from './yaml-tree.ts';
import type { Branch, Leaf, Row, Tree, YamlTrees } from './yaml-tree.ts';

/**
 * How much the place says about the text in it: `certain`, of what is run; `likely`, of an `image` of anything else;
 * `named`, of a key or variable that is called so; `argument`, of any entry of a list.
 */
export type Sureness = 'certain' | 'likely' | 'named' | 'argument';

export interface Candidate {
  readonly text: string;
  readonly line: number;
  readonly what: string;
  readonly sureness: Sureness;
  /** Why it cannot be fetched, where its name alone does not tell. */
  readonly refused?: string;
}

/** Where the walk is. */
interface Place {
  /** `Deployment/web`, empty in what is no object of Kubernetes. */
  readonly object: string;
  /** What is run: `container api`, `service db`. */
  readonly runs: string;
  /** The keys from there on. */
  readonly path: string;
  readonly depth: number;
}

interface Walk {
  readonly candidates: Candidate[];
  /** How many more nodes it may meet: aliases of aliases grow without bound. */
  left: number;
}

const containerLists: Readonly<Record<string, string>> = {
  containers: 'container',
  initContainers: 'init container',
  ephemeralContainers: 'ephemeral container',
  volumes: 'volume',
};

const partNames = ['repository', 'image', 'baseImage', 'name'];

// Aliases repeat a part of the text; nobody repeats as much as this.
const maxRepeated = 100_000;

/** Everything that stands where images do. What a live object says of itself, below `status`, is not asked. */
export function placesOf({ roots, nodes }: YamlTrees): readonly Candidate[] {
  const walk: Walk = { candidates: [], left: 2 * nodes + maxRepeated };
  for (const root of roots) visit(root, { object: '', runs: '', path: '', depth: 0 }, walk);
  return walk.candidates;
}

function visit(tree: Tree, place: Place, walk: Walk): void {
  if (place.depth > maxDepth) throw syntaxError(tree.line, `nested deeper than ${maxDepth} levels`);
  walk.left -= 1 + sizeOf(tree);
  if (walk.left < 0) throw syntaxError(tree.line, 'aliases repeat too much');
  if (tree.kind === 'row') visitRow(tree, place, walk);
  else if (tree.kind === 'branch') visitBranch(tree, place, walk);
}

function sizeOf(tree: Tree): number {
  if (tree.kind === 'leaf') return 0;
  return tree.kind === 'row' ? tree.items.length : tree.entries.size;
}

function visitBranch(map: Branch, above: Place, walk: Walk): void {
  const { entries } = map;
  const object = objectName(map);
  const place = object === undefined ? above : { ...above, object, runs: '', path: '' };
  // Their data is for programs: what looks like a key of ours is the name of a file.
  if (object !== undefined && /^(?:ConfigMap|Secret)(?:\/|$)/.test(object)) return;
  const isTop = object !== undefined || above.depth === 0;
  const isCompose = above.depth === 0 && object === undefined && entries.get('services')?.kind === 'branch';
  const parts = readParts(map, place);
  if (parts) add(walk, parts, place);
  addVariable(map, place, walk);
  for (const [key, value] of entries) {
    if (isTop && key === 'status') continue;
    // Of compose: templates that services merge, and no services themselves.
    if (isCompose && key.startsWith('x-')) continue;
    if (parts && partNames.includes(key) && value.kind === 'leaf') continue;
    const below = { ...place, path: joined(place.path, key), depth: place.depth + 1 };
    if (value.kind === 'leaf') add(walk, readEntry(key, value, map, place), below);
    else if (isCompose && key === 'services' && value.kind === 'branch') visitServices(value, below, walk);
    else visit(value, below, walk);
  }
}

function visitServices(services: Branch, place: Place, walk: Walk): void {
  for (const [name, service] of services.entries) {
    // Values of charts may have `services` as well: there it is a map like any other.
    const isService = service.kind === 'branch' && (isText(service, 'image') || service.entries.has('build'));
    const below = { ...place, depth: place.depth + 1 };
    visit(service, isService ? { ...below, runs: `service ${short(name)}`, path: '' } : within(below, name), walk);
  }
}

function visitRow(list: Row, place: Place, walk: Walk): void {
  const key = place.path.slice(place.path.lastIndexOf('.') + 1);
  for (const item of list.items) {
    if (item.kind === 'leaf') {
      const text = { text: item.text, line: item.line };
      if (item.isString) add(walk, { ...text, ...itemSureness(place, key, item.text) }, place);
    } else {
      visit(item, itemPlace(item, key, place), walk);
      if (item.kind === 'branch' && /images$/i.test(key)) add(walk, readImageItem(item), place);
    }
  }
}

function itemPlace(item: Tree, key: string, place: Place): Place {
  const below = { ...place, depth: place.depth + 1 };
  const name = item.kind === 'branch' ? short(textOf(item, 'name')) : '';
  const runs = Object.hasOwn(containerLists, key) ? containerLists[key] : undefined;
  if (item.kind === 'branch' && runs !== undefined && isRun(item, runs)) {
    return { ...below, runs: `${runs} ${name}`.trimEnd(), path: '' };
  }
  return name === '' ? below : { ...below, path: `${place.path}[${name}]` };
}

function isRun(item: Branch, runs: string): boolean {
  return runs === 'volume' ? item.entries.get('image')?.kind === 'branch' : isText(item, 'image');
}

/** A list without a name is one of images, as is one that stands on top under theirs. */
function itemSureness({ object, path }: Place, key: string, text: string): { text: string; sureness: Sureness } {
  if (path === '' || (path === 'images' && object === '')) return { text, sureness: 'certain' };
  if (key === 'images') return { text, sureness: 'likely' };
  const [, name, value] = /^([\w.-]+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined || value === undefined) return { text, sureness: 'argument' };
  return { text: value, sureness: isVariable(name) ? 'named' : 'argument' };
}

type Reading = Omit<Candidate, 'what'> | undefined;

function add({ candidates }: Walk, reading: Reading, { object, runs, path }: Place): void {
  if (!reading) return;
  // What is run says itself which image is meant; of volumes, the reference is below that.
  const rest = runs !== '' && /^image(?:\.reference)?$/.test(path) ? '' : path;
  const what = [object, runs, rest].filter((part) => part !== '').join(', ') || 'image list';
  candidates.push({ ...reading, what });
}

function readEntry(key: string, { text, line, isString }: Leaf, map: Branch, { runs, path }: Place): Reading {
  if (!isString) return undefined;
  if (key === 'image') return { text, line, sureness: runs !== '' || looksRun(map, path) ? 'certain' : 'likely' };
  if (/^image_?name$/i.test(key)) return { text, line, sureness: 'likely' };
  if (/image$|^image_?(?:ref|reference|ur[il])$/i.test(key)) return { text, line, sureness: 'named' };
  if (key === 'reference' && /(?:^|\.)image$/.test(path)) return { text, line, sureness: 'certain' };
  if (key === 'source' && textOf(map, 'type') === 'image') return { text, line, sureness: 'certain' };
  return isVariable(key) ? { text, line, sureness: 'named' } : undefined;
}

/** Steps of pipelines and the like: containers in all but name. An `image: pilot` in a chart's values is none. */
function looksRun(map: Branch, path: string): boolean {
  return path.endsWith(']') || ['command', 'args', 'script', 'imagePullPolicy'].some((key) => map.entries.has(key));
}

function isVariable(name: string): boolean {
  return /^RELATED_IMAGE_.|_IMAGE$/.test(name);
}

function addVariable(map: Branch, place: Place, walk: Walk): void {
  const value = map.entries.get('value');
  if (value?.kind !== 'leaf' || !value.isString || !isVariable(textOf(map, 'name'))) return;
  add(walk, { text: value.text, line: value.line, sureness: 'named' }, place);
}

/** `{registry, repository, tag, digest}` and what else charts call these. */
function readParts(map: Branch, { runs, path }: Place): Reading {
  const isNamed = /image$/i.test(path) && runs === '';
  const keys = isNamed ? partNames : partNames.slice(0, -1);
  const name = keys.map((key) => map.entries.get(key)).find((tree) => tree?.kind === 'leaf' && tree.text !== '');
  if (name?.kind !== 'leaf' || !name.isString) return undefined;
  const hasRest = ['tag', 'digest', 'sha'].some((key) => map.entries.get(key)?.kind === 'leaf');
  if (!hasRest && !(isNamed && isText(map, 'repository'))) return undefined;
  const registry = (textOf(map, 'registry') || textOf(map, 'hub')).trim().replace(/\/+$/, '');
  const base = registry === '' ? name.text.trim() : `${registry}/${name.text.trim()}`;
  const digest = textOf(map, 'useDigest') === 'false' ? '' : textOf(map, 'digest') || textOf(map, 'sha');
  const text = withReference(base, textOf(map, 'tag'), digest);
  return { text, line: name.line, sureness: isNamed ? 'certain' : 'named' };
}

/** An entry of `images`: of a kustomization, or of the lists that mirroring tools take. */
function readImageItem(item: Branch): Reading {
  const renamed = item.entries.get('newName') ?? item.entries.get('name');
  if (renamed?.kind !== 'leaf' || !renamed.isString || item.entries.has('image')) return undefined;
  const { line } = renamed;
  const isPinned = item.entries.has('newTag') || item.entries.has('digest');
  const text = withReference(renamed.text.trim(), textOf(item, 'newTag'), textOf(item, 'digest'));
  // To take `latest` would fetch another image than the manifests name.
  const refused = !isPinned && item.entries.has('newName') && { refused: 'its tag stands in the manifests' };
  return { text, line, sureness: isPinned ? 'certain' : 'named', ...refused };
}

function withReference(name: string, tag: string, digest: string): string {
  if (name.includes('@')) return name;
  const hasTag = name.slice(name.lastIndexOf('/') + 1).includes(':') && !name.includes('{{');
  const tagged = tag.trim() === '' || hasTag ? name : `${name}:${tag.trim()}`;
  if (digest.trim() === '' || tagged.includes('@')) return tagged;
  return `${tagged}@${digest.includes(':') ? '' : 'sha256:'}${digest.trim()}`;
}

function objectName(map: Branch): string | undefined {
  const kind = textOf(map, 'kind');
  if (kind === '' || textOf(map, 'apiVersion') === '') return undefined;
  const metadata = map.entries.get('metadata');
  const name = metadata?.kind === 'branch' ? textOf(metadata, 'name') || textOf(metadata, 'generateName') : '';
  return short(name === '' ? kind : `${kind}/${name}`);
}

function textOf(map: Branch, key: string): string {
  const tree = map.entries.get(key);
  return tree?.kind === 'leaf' ? tree.text : '';
}

function isText(map: Branch, key: string): boolean {
  return textOf(map, key) !== '';
}

function within(place: Place, key: string): Place {
  return { ...place, path: joined(place.path, key) };
}

function joined(path: string, key: string): string {
  return path === '' ? short(key) : `${path}.${short(key)}`;
}

/** Names are shorter; what is none shall not be carried along through all that is below it. Its end tells most. */
function short(name: string): string {
  return name.length > 100 ? `…${name.slice(-100)}` : name;
}
