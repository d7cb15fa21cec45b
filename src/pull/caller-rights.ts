import type { Identity, Login } from '../access/identity.ts';
import type { Verdicts } from '../access/verdicts.ts';
import { contentKey } from '../cache/records.ts';
import type { Records } from '../cache/records.ts';
import { NarrowsError } from '../errors.ts';
import { referenceText } from '../oci/reference.ts';
import type { Reference } from '../oci/reference.ts';
import type { Source } from '../upstream/registries.ts';
import type { CallersUpstream } from '../upstream/upstream.ts';
import type { Route } from './request.ts';

/** What a caller may read, where the upstream is asked that with the caller's own credential. */
export interface CallerRights {
  /**
   * Passes where the upstream would give this caller what is asked for. Nothing that is held here has a say in it, and
   * where the upstream cannot be asked, nobody may.
   *
   * @throws NarrowsError unauthorized, denied, what the upstream does not have, and trouble of all kinds
   */
  require(by: Identity, source: Source, route: ContentRoute): Promise<void>;
  /** Is this a credential of the upstream's? @throws NarrowsError unauthorized, and trouble of all kinds */
  requireLogin(by: Identity): Promise<void>;
  /** Has the caller been let in a moment ago? Nobody is asked. */
  isRemembered(by: Identity, repositoryKey: string): boolean;
}

export type ContentRoute = Exclude<Route, { kind: 'ping' | 'catalog' }>;

export interface CallerRightsOptions {
  /** The upstream whose credentials callers show. They go to no other: there, callers are anyone. */
  readonly registry: string;
  readonly verdicts: Verdicts;
  readonly records: Pick<Records, 'narrowed'>;
  /** The registry as this caller sees it, with connections and tokens of its own. Whoever opens it closes it. */
  open(upstream: string, login: Login | undefined): CallersUpstream;
}

export function createCallerRights({ registry, verdicts, records, open }: CallerRightsOptions): CallerRights {
  const loginAt = (upstream: string, { login }: Identity) => (upstream === registry ? login : undefined);

  /** @returns false for a refusal */
  function mayDo(login: Login | undefined, upstream: string, subject: string, question: Question): Promise<boolean> {
    return verdicts.find(login, subject, { of: upstream, text: question.text }, async () => {
      const asked = open(upstream, login);
      try {
        await question.ask(asked);
      } finally {
        await asked.close();
      }
    });
  }

  /** What was made here is not there: the original is asked for instead. */
  async function originalOf(source: Source, reference: Reference): Promise<Reference> {
    if (reference.kind === 'tag') return reference;
    const made = await records.narrowed.get(contentKey(source, reference.digest));
    return made ? { kind: 'digest', digest: made.index } : reference;
  }

  async function manifestQuestion(source: Source, asked: Reference): Promise<Question> {
    const { repository } = source;
    const reference = await originalOf(source, asked);
    const text = referenceText(asked);
    return {
      text: `manifest ${text}`,
      async ask(upstream) {
        const head = await upstream.head(repository, reference);
        const isSaid = head !== undefined && (head.digest !== undefined || head.contentType !== '');
        // A registry that knows no HEAD has said nothing of rights yet.
        if (isSaid || (head && (await upstream.manifest(repository, reference)))) return;
        throw new NarrowsError('manifestUnknown', `${upstream.name} has no manifest ${text} in ${repository}.`);
      },
    };
  }

  /** To pull is a right to a repository: whoever may read the one thing may read the others. */
  async function questionFor(source: Source, route: ContentRoute): Promise<Question> {
    const { repository } = source;
    switch (route.kind) {
      case 'manifest':
        return manifestQuestion(source, route.reference);
      case 'referrers':
        return manifestQuestion(source, { kind: 'digest', digest: route.digest });
      case 'blob':
        return {
          text: `blob ${route.digest}`,
          async ask(upstream) {
            if (await upstream.blobHead(repository, route.digest)) return;
            throw new NarrowsError('blobUnknown', `${upstream.name} has no blob ${route.digest} in ${repository}.`);
          },
        };
      case 'tags':
        return {
          text: 'tags',
          async ask(upstream) {
            if (await upstream.list(repository, 'tags/list', new URLSearchParams({ n: '1' }))) return;
            throw new NarrowsError('nameUnknown', `${upstream.name} has no repository ${repository}.`);
          },
        };
      default:
        return route satisfies never;
    }
  }

  return {
    async require(by, source, route) {
      const { name } = source.upstream;
      const login = loginAt(name, by);
      // Some registries let people see the tags of what they may not pull.
      const subject = route.kind === 'tags' ? `${source.key} tags` : source.key;
      if (await mayDo(login, name, subject, await questionFor(source, route))) return;
      throw refusal(by, login, `${name} does not let you read ${source.repository}.`);
    },

    async requireLogin(by) {
      const { login } = by;
      const question: Question = { text: 'login', ask: (upstream) => upstream.enter() };
      if (login && (await mayDo(login, registry, loginSubject, question))) return;
      throw unauthorized(by, login ? `${registry} does not take this user and password.` : `Log in as at ${registry}.`);
    },

    isRemembered: (by, key) => verdicts.last(loginAt(key.split('/', 1)[0]!, by), key) === true,
  };
}

interface Question {
  /** What is asked, for those who ask the same. */
  readonly text: string;
  /** @throws NarrowsError denied, what is unknown, and trouble */
  ask(upstream: CallersUpstream): Promise<void>;
}

/** No repository is called so. */
const loginSubject = '';

/** Who has shown nothing may have something to show. */
function refusal(by: Identity, login: Login | undefined, message: string): NarrowsError {
  return login || by.login ? new NarrowsError('denied', message) : unauthorized(by, `${message} Log in first.`);
}

function unauthorized({ challenge }: Identity, message: string): NarrowsError {
  return new NarrowsError('unauthorized', message, {
    ...(challenge && { headers: { 'www-authenticate': challenge() } }),
  });
}
