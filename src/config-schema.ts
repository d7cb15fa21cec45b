import { isMap, isScalar, parseDocument } from 'yaml';
import type { YAMLMap } from 'yaml';
import { z } from 'zod';
import { configSchema } from './config.ts';

type Schema = { [key: string]: unknown; properties?: Record<string, Schema>; required?: string[] };

/**
 * The JSON Schema of a configuration file: the rules from the schema that checks it, the words and defaults from
 * `config/default.yaml`, and nothing required, for a file names only what it changes.
 */
export function jsonSchema(defaultsYaml: string): Schema {
  const schema = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as Schema;
  const defaults = parseDocument(defaultsYaml).contents;
  if (isMap(defaults)) annotate(schema, defaults);
  allowPartialUpstreams(schema);
  return { ...schema, title: 'narrows' };
}

/** A file may name a part of an upstream that the defaults have, or take it away with null. */
function allowPartialUpstreams(schema: Schema): void {
  const upstreams = schema.properties?.['upstreams'];
  if (!upstreams) return;
  const { required: _, ...upstream } = upstreams['additionalProperties'] as Schema;
  upstreams['additionalProperties'] = { anyOf: [upstream, { type: 'null' }] };
}

function annotate(schema: Schema, defaults: YAMLMap): void {
  delete schema.required;
  for (const [index, { key, value }] of defaults.items.entries()) {
    if (!isScalar(key)) continue;
    const property = schema.properties?.[String(key.value)];
    if (!property) continue;
    // The parser gives the comment before a map's first key to the map.
    const written = key.commentBefore ?? (index === 0 ? defaults.commentBefore : undefined);
    // What stands a line apart is about the file.
    const comment = written?.replaceAll(/^ /gm, '').trim().split('\n\n').at(-1);
    if (comment) property['description'] = comment;
    if (isMap(value)) annotate(property, value);
    else if (isScalar(value)) property['default'] = value.value;
  }
}
