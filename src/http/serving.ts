import type { Access } from '../access/access.ts';
import type { TokenService } from '../access/token-service.ts';
import type { PlatformSet } from '../oci/platform.ts';
import type { Pull } from '../pull/pull.ts';
import type { EndpointView } from '../pull/request.ts';
import type { Push } from '../push/push.ts';
import type { Repeats } from './repeats.ts';

/** What a listener says about those who come there. */
export interface EndpointRules {
  readonly set: PlatformSet | undefined;
  readonly view: EndpointView;
  readonly upstream: string | undefined;
}

/** What answers requests. A request has the same from its beginning to its end. */
export interface Serving {
  /** In the order of the listeners. */
  readonly endpoints: readonly EndpointRules[];
  readonly access: Access;
  /** Where clients get tokens here. */
  readonly tokens: TokenService | undefined;
  readonly pull: Pull;
  readonly push: Push;
  readonly repeats: Repeats;
  /** A request begins. @returns to be called when its answer has ended */
  begin(): () => void;
}
