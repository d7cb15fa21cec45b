const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const counts = new Intl.NumberFormat('en');

/**
 * Three digits that count: `0 B`, `1.50 KiB`, `12.3 MiB`, `123 GiB`.
 *
 * @param {number} amount
 */
export function bytes(amount) {
  let [value, unit] = [Math.max(0, amount), 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** @param {number} bytesPerSecond */
export function rate(bytesPerSecond) {
  return `${bytes(bytesPerSecond)}/s`;
}

/** @param {number} value */
export function count(value) {
  return counts.format(value);
}

/**
 * `1 reader`, `2 readers`.
 *
 * @param {number} value
 * @param {string} one
 */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** @param {number} part of 1 */
export function percent(part) {
  const whole = part * 100;
  // Nearly all is not all, and nearly nothing is not nothing.
  if (whole > 0 && whole < 1) return '< 1 %';
  if (whole > 99 && whole < 100) return '> 99 %';
  return `${Math.round(whole)} %`;
}

/**
 * The two largest units of it: `42 s`, `3 min 5 s`, `2 d 4 h`.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  /** @type {[number, string][]} */
  const parts = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first === -1) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(' ');
}

/** @param {string} digest */
export function shortDigest(digest) {
  return digest.slice(digest.indexOf(':') + 1).slice(0, 12);
}
