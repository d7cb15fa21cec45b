import { LineCounter, isAlias, isMap, isScalar, isSeq, parseAllDocuments } from 'yaml';
import type { Document, YAMLMap } from 'yaml';

/** YAML as plain trees that know their lines; aliases and merge keys are followed, so that nobody meets them. */
export type Tree = Leaf | Branch | Row;

export interface Leaf {
  readonly kind: 'leaf';
  readonly line: number;
  /** As written for what is no string: a tag of `1.20` shall not become 1.2. */
  readonly text: string;
  readonly isString: boolean;
}

export interface Branch {
  readonly kind: 'branch';
  readonly line: number;
  readonly entries: ReadonlyMap<string, Tree>;
}

export interface Row {
  readonly kind: 'row';
  readonly line: number;
  readonly items: readonly Tree[];
}

export interface YamlTrees {
  /** One a document, without those that are empty. */
  readonly roots: readonly Tree[];
  /** How much was written. Aliases share their tree, so a walk may meet far more than this. */
  readonly nodes: number;
}

/** Of the text, and of what aliases make of it. */
export const maxDepth = 200;

// A merge copies the keys: a chain of them is quadratic.
const maxMerged = 100_000;

interface Reading {
  readonly text: string;
  readonly lines: LineCounter;
  /** The anchors so far; undefined while the node itself is being read. */
  readonly anchors: Map<string, Tree | undefined>;
  readonly count: { nodes: number; merged: number };
}

export function syntaxError(line: number, message: string): SyntaxError {
  return new SyntaxError(`line ${line}: ${message}`);
}

export function notRendered(line: number): SyntaxError {
  return syntaxError(line, 'this looks like a Helm template that has not been rendered; run `helm template` first');
}

/** @throws SyntaxError with the line of the first mistake */
export function readYaml(text: string): YamlTrees {
  const lines = new LineCounter();
  const count = { nodes: 0, merged: 0 };
  const roots: Tree[] = [];
  for (const document of parseDocuments(text, lines)) {
    const [mistake] = document.errors;
    if (mistake) {
      const line = lineAt(lines, mistake.pos[0]);
      if (hasTemplateLines(text)) {
        throw notRendered(line);
      }
      throw syntaxError(line, `no YAML: ${mistake.message}`);
    }
    // Anchors end with their document.
    if (!document.contents) continue;
    const root = treeOf(document.contents, { text, lines, anchors: new Map(), count }, 0);
    if (root.kind !== 'leaf' || root.text !== '') roots.push(root);
  }
  return { roots, nodes: count.nodes };
}

function parseDocuments(text: string, lines: LineCounter): readonly Document.Parsed[] {
  try {
    // Charts do render keys twice, and to look for them is quadratic.
    const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
    return 'empty' in documents ? [] : documents;
  } catch (cause) {
    // What the library cannot cope with, such as an anchor without a name, it throws instead of telling it.
    // The stack may run out in it before its own bound on nesting does.
    const isDeep = cause instanceof RangeError;
    const message = isDeep ? `nested deeper than ${maxDepth} levels` : `no YAML: ${String(cause)}`;
    throw new SyntaxError(`line 1: ${message}`, { cause });
  }
}

/** A control line, or an action where a plain value would stand; within quotes it may be anybody's template. */
function hasTemplateLines(text: string): boolean {
  return /^[ \t]*(?:- +)?\{\{|: +\{\{/m.test(text);
}

function lineAt(lines: LineCounter, offset: number): number {
  // Line 0 is what the library says before it has met the first line break.
  return Math.max(1, lines.linePos(offset).line);
}

function treeOf(node: unknown, reading: Reading, depth: number): Tree {
  const start = rangeOf(node)[0];
  const line = lineAt(reading.lines, start);
  if (depth > maxDepth) throw syntaxError(line, `nested deeper than ${maxDepth} levels`);
  if (isAlias(node)) return aliased(node.source, line, reading);
  reading.count.nodes++;
  const anchor = isMap(node) || isSeq(node) || isScalar(node) ? node.anchor : undefined;
  if (anchor !== undefined) reading.anchors.set(anchor, undefined);
  const tree = plainTree(node, line, reading, depth);
  if (anchor !== undefined) reading.anchors.set(anchor, tree);
  return tree;
}

function plainTree(node: unknown, line: number, reading: Reading, depth: number): Tree {
  const [start, end] = rangeOf(node);
  if (isMap(node)) {
    // `image: {{ .Values.image }}` is YAML after all: a map whose key is a map. Nobody means that.
    if (node.flow && reading.text.startsWith('{{', start)) {
      return { kind: 'leaf', line, text: reading.text.slice(start, end), isString: true };
    }
    return { kind: 'branch', line, entries: entriesOf(node, reading, depth) };
  }
  if (isSeq(node)) return { kind: 'row', line, items: node.items.map((item) => treeOf(item, reading, depth + 1)) };
  if (!isScalar(node)) return { kind: 'leaf', line, text: '', isString: false };
  if (typeof node.value === 'string') return { kind: 'leaf', line, text: node.value, isString: true };
  return { kind: 'leaf', line, text: node.value === null ? '' : (node.source ?? ''), isString: false };
}

function aliased(name: string, line: number, { anchors }: Reading): Tree {
  const tree = anchors.get(name);
  if (tree) return tree;
  throw syntaxError(line, anchors.has(name) ? `*${name} contains itself` : `*${name} has no anchor before it`);
}

/** A key of the map itself wins over a merged one, and an earlier merge over a later one. */
function entriesOf(map: YAMLMap, reading: Reading, depth: number): Map<string, Tree> {
  const own = new Map<string, Tree>();
  const merged = new Map<string, Tree>();
  for (const { key, value } of map.items) {
    // The key first: it may hold an anchor that the value refers to.
    const name = treeOf(key, reading, depth + 1);
    const tree = treeOf(value, reading, depth + 1);
    if (name.kind !== 'leaf') continue;
    if (name.text !== '<<') {
      own.set(name.text, tree);
      continue;
    }
    for (const source of tree.kind === 'row' ? tree.items : [tree]) merge(merged, source, reading);
  }
  for (const [name, tree] of merged) if (!own.has(name)) own.set(name, tree);
  return own;
}

function merge(into: Map<string, Tree>, source: Tree, { count }: Reading): void {
  if (source.kind !== 'branch') return;
  count.merged += source.entries.size;
  if (count.merged > maxMerged) throw syntaxError(source.line, `merge keys make more than ${maxMerged} entries`);
  for (const [name, tree] of source.entries) if (!into.has(name)) into.set(name, tree);
}

function rangeOf(node: unknown): readonly [start: number, end: number] {
  const hasRange = isMap(node) || isSeq(node) || isScalar(node) || isAlias(node);
  return (hasRange && node.range && [node.range[0], node.range[1]]) || [0, 0];
}
