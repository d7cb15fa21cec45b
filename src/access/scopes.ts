/**
 * What a token is good for, as clients and registries write it: `repository:library/nginx:pull,push` (distribution
 * `docs/content/spec/auth/scope.md`).
 */
export interface Scope {
  readonly type: string;
  readonly name: string;
  /** `pull`, `push`, `delete`; `*` is all of them. */
  readonly actions: readonly string[];
}

/** What it takes to see the list of repositories. */
export const catalogScope: Scope = { type: 'registry', name: 'catalog', actions: ['*'] };

export function repositoryScope(name: string, ...actions: string[]): Scope {
  return { type: 'repository', name, actions };
}

/** A class, as in `repository(plugin):…`, changes nothing. */
const grammar = /^([a-z0-9]+)(?:\([a-z0-9]+\))?:(.{1,320}):([a-z,*]{1,64})$/;

/**
 * Several stand one behind the other with a space between them, in one parameter or in several. What is no scope asks
 * for nothing.
 */
export function parseScopes(parameters: readonly string[], maxScopes: number): Scope[] {
  const texts = parameters.flatMap((parameter) => parameter.split(' ')).slice(0, maxScopes);
  return texts.flatMap((text): Scope[] => {
    const [, type, name, actions] = grammar.exec(text) ?? [];
    if (type === undefined || name === undefined || actions === undefined) return [];
    return [{ type, name, actions: [...new Set(actions.split(','))].filter((action) => action !== '') }];
  });
}

export function formatScope({ type, name, actions }: Scope): string {
  return `${type}:${name}:${actions.join(',')}`;
}

/** Is a token with these scopes good for all of that? */
export function covers(scopes: readonly Scope[], wanted: Scope): boolean {
  const fitting = scopes.filter(({ type, name }) => type === wanted.type && name === wanted.name);
  const actions = fitting.flatMap((scope) => scope.actions);
  return actions.includes('*') || wanted.actions.every((action) => actions.includes(action));
}
