import type { HostedContent } from '../cache/hosted-content.ts';
import type { Ledger } from '../cache/ledger.ts';
import type { Uploads } from '../cache/uploads.ts';
import type { OwnerRule } from './owners.ts';

/** What a push is made of; `wiring` puts it together. */
export interface PushParts {
  readonly ledger: Ledger;
  readonly content: HostedContent;
  readonly uploads: Uploads;
  readonly rules: PushRules;
  now(): number;
  /** A repository has something now. */
  onPushed(repository: string): Promise<void>;
}

export interface PushRules {
  /** Undefined for what is not hosted here. */
  hosted(repository: string): HostedRules | undefined;
  /** Who may read a repository, by its key. */
  pullersOf(repository: string): readonly string[];
  readonly maxManifestBytes: number;
}

export interface HostedRules {
  readonly isComposed: boolean;
  /** Users and groups. */
  readonly push: readonly string[];
  /** Undefined where whoever may push may push every platform. */
  readonly owners: readonly OwnerRule[] | undefined;
  readonly maxSteps: number;
}
