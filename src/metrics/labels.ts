/** Each value of a label is a series that a Prometheus keeps for weeks: what callers make up is `other`. */
const common =
  /^(?:linux|windows|freebsd|darwin)\/(?:386|amd64|arm64|arm|arm\/v[5-8]|ppc64le|s390x|riscv64|mips64le|loong64)$/;

function labelOf(platform: string): string {
  // Of Windows, each build would be one of its own: windows(10.0.20348.1)/amd64.
  const plain = platform.replace(/\([^)]*\)/, '');
  return common.test(plain) ? plain : 'other';
}

/** As `Narrows-Platform` says it: `linux/arm64; via=path`. */
export function platformLabel(said: string | undefined): string {
  if (said === undefined) return 'none';
  const [set = ''] = said.split(';', 1);
  if (set === 'any') return 'any';
  return set.includes(',') ? 'several' : labelOf(set);
}

/** What content is for, as far as anyone has learnt. */
export function servedLabel(platforms: readonly string[]): string {
  const [one, ...others] = platforms;
  if (one === undefined) return 'unknown';
  return others.length > 0 ? 'several' : labelOf(one);
}
