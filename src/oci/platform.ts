/** What an image is built for, in the terms of the image specification (image-index.md, "platform"). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly osVersion?: string;
  readonly osFeatures?: readonly string[];
}

/** The platforms that a caller runs; `any` for a caller that wants everything as it is. */
export type PlatformSet = 'any' | readonly Platform[];

const word = /^[A-Za-z0-9_.-]+$/;

/**
 * Reads `os/arch[/variant]`, Windows with its version as in `windows(10.0.20348)/amd64` (containerd/platforms
 * "Specifiers"). Undefined where the text is no platform: who asks knows which mistake that is.
 */
export function parsePlatform(text: string): Platform | undefined {
  const [head = '', architecture, variant, ...rest] = text.trim().split('/');
  const system = /^([A-Za-z0-9_.-]+)(?:\(([0-9.]+)\))?$/.exec(head);
  if (!system || !architecture || rest.length > 0 || !word.test(architecture)) return undefined;
  if (variant !== undefined && !word.test(variant)) return undefined;
  const os = system[1]!;
  const osVersion = system[2];
  return normalise({ os, architecture, ...(variant && { variant }), ...(osVersion && { osVersion }) });
}

/** Reads `linux-arm64` or `linux-arm-v7`: how a platform is spelled in a path, where `/` would split it. */
export function parsePathPlatform(text: string): Platform | undefined {
  const parts = text.includes('/') ? [] : text.split('-');
  return parts.length === 2 || parts.length === 3 ? parsePlatform(parts.join('/')) : undefined;
}

/** Reads a set as a caller writes it: `any`, a named set, or platforms, in the spelling of paths or of headers. */
export function parsePlatformSet(
  text: string,
  named: ReadonlyMap<string, PlatformSet>,
  spelling: 'path' | 'header',
): PlatformSet | undefined {
  const name = text.trim();
  if (name === 'any') return 'any';
  const known = named.get(name);
  if (known) return known;
  const parts = spelling === 'path' ? name.split('_').map(parsePathPlatform) : name.split(',').map(parsePlatform);
  return parts.length <= maxSetSize && parts.every((part) => part !== undefined) ? unique(parts) : undefined;
}

/** A caller's set is compared with every child of an index. */
const maxSetSize = 16;

function unique(platforms: Platform[]): Platform[] {
  return [...new Map(platforms.map((platform) => [formatPlatform(platform), platform])).values()];
}

export function formatPlatform(platform: Platform): string {
  const os = platform.osVersion ? `${platform.os}(${platform.osVersion})` : platform.os;
  return [os, platform.architecture, platform.variant].filter(Boolean).join('/');
}

export function formatPlatformSet(set: PlatformSet): string {
  return set === 'any' ? 'any' : set.map(formatPlatform).join(',');
}

/** A platform as the image specification writes it. */
export function platformJson({
  os,
  architecture,
  variant,
  osVersion,
  osFeatures,
}: Platform): Record<string, string | string[]> {
  return {
    architecture,
    os,
    ...(osVersion && { 'os.version': osVersion }),
    ...(osFeatures && { 'os.features': [...osFeatures] }),
    ...(variant && { variant }),
  };
}

const architectures = new Map<string, [architecture: string, variant?: string]>([
  ['i386', ['386', '']],
  ['x86_64', ['amd64']],
  ['x86-64', ['amd64']],
  ['aarch64', ['arm64']],
  ['armhf', ['arm', 'v7']],
  ['armel', ['arm', 'v6']],
]);

/** One spelling for each platform, the rules of containerd/platforms `database.go`. */
export function normalise(platform: Platform): Platform {
  const os = platform.os.toLowerCase() === 'macos' ? 'darwin' : platform.os.toLowerCase();
  const spelled = platform.architecture.toLowerCase();
  const [architecture, implied] = architectures.get(spelled) ?? [spelled];
  const variant = normaliseVariant(architecture, implied ?? platform.variant?.toLowerCase() ?? '');
  return {
    os,
    architecture,
    ...(variant && { variant }),
    ...(platform.osVersion && { osVersion: platform.osVersion }),
    ...(platform.osFeatures?.length && { osFeatures: platform.osFeatures }),
  };
}

function normaliseVariant(architecture: string, variant: string): string {
  if (architecture === 'amd64') return variant === 'v1' ? '' : variant;
  if (architecture === 'arm64') {
    if (['8', 'v8', '8.0', 'v8.0'].includes(variant)) return '';
    return ['9', '9.0', 'v9.0'].includes(variant) ? 'v9' : variant;
  }
  if (architecture === 'arm') {
    if (variant === '') return 'v7';
    return /^[5-8]$/.test(variant) ? `v${variant}` : variant;
  }
  return variant;
}

/**
 * How well does an image's platform fit what a caller runs? 0 is exact, more is a step down the chain of variants,
 * undefined does not run there. Follows `platforms.Only` of containerd, save that no architecture stands in for
 * another (386 for amd64, arm for arm64): strict clients refuse that (facts of containerd's transfer service,
 * containers/image and go-containerregistry).
 */
export function fit(wanted: Platform, offered: Platform): number | undefined {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return undefined;
  const step = variantChain(wanted).indexOf(offered.variant ?? '');
  if (step < 0 || !featuresFit(wanted, offered) || !osVersionFits(wanted, offered)) return undefined;
  return step;
}

/** Same os, architecture and a variant that runs, whatever the os version and features say. */
export function fitsButForVersion(wanted: Platform, offered: Platform): boolean {
  return fit(strip(wanted), strip(offered)) !== undefined;
}

function strip({ os, architecture, variant }: Platform): Platform {
  return { os, architecture, ...(variant && { variant }) };
}

/** The variants that run on a platform, best first, its own before all; '' is the baseline of the architecture. */
function variantChain({ architecture, variant = '' }: Platform): string[] {
  return [...new Set([variant, ...olderVariants(architecture, variant)])];
}

function olderVariants(architecture: string, variant: string): string[] {
  const [, major = '', minor = '0'] = /^v([0-9]+)(?:\.([0-9]+))?$/.exec(variant) ?? [];
  if (architecture === 'amd64' && major) return [...downFrom(Number(major), 2, 'v'), ''];
  if (architecture === 'arm' && major) return downFrom(Number(major), 5, 'v');
  if (architecture === 'arm64' && major === '9') {
    // ARMv9.N holds all of ARMv8.(N+5); v8.9 is the last of its line.
    const oldMinor = Math.min(Number(minor) + 5, 9);
    return [...downFrom(Number(minor), 1, 'v9.'), 'v9', ...downFrom(oldMinor, 1, 'v8.'), ''];
  }
  if (architecture === 'arm64' && major === '8') return [...downFrom(Number(minor), 1, 'v8.'), ''];
  return [];
}

// A variant is a caller's text: 32 steps are more than any architecture has, and bound what `v999999999` costs.
function downFrom(from: number, to: number, prefix: string): string[] {
  const length = Math.max(0, Math.min(from - to + 1, 32));
  return Array.from({ length }, (_, step) => `${prefix}${from - step}`);
}

function featuresFit(wanted: Platform, offered: Platform): boolean {
  const needed = (offered.osFeatures ?? []).filter((feature) => wanted.os !== 'windows' || feature !== 'win32k');
  return needed.every((feature) => wanted.osFeatures?.includes(feature));
}

// Windows Server 2022 and 2025: from the first of them on, a host runs images back to the long-term release before it.
const firstServicedBuild = 20348;
const longTermBuilds = [firstServicedBuild, 26100];

/** Windows tells its kernel by `os.version`; the rules of containerd/platforms `platform_windows_compat.go`. */
function osVersionFits(wanted: Platform, offered: Platform): boolean {
  if (wanted.os !== 'windows' || !wanted.osVersion || !offered.osVersion) return true;
  // Without a build it names no kernel.
  if (wanted.osVersion.split('.').length < 3) return true;
  const host = parseOsVersion(wanted.osVersion);
  const image = parseOsVersion(offered.osVersion);
  if (host.majorMinor !== image.majorMinor) return false;
  if (host.build < firstServicedBuild) return host.build === image.build;
  const oldest = longTermBuilds.findLast((build) => build < host.build) ?? firstServicedBuild;
  return image.build >= oldest && image.build <= host.build;
}

function parseOsVersion(version: string): { majorMinor: string; build: number } {
  const [major = '', minor = '', build = ''] = version.split('.');
  return { majorMinor: `${major}.${minor}`, build: Number(build) };
}
