/** Seconds, or a number with a unit: `30s`, `5m`, `2h`, `1d`. */
export type Duration = number | `${number}${'s' | 'm' | 'h' | 'd'}`;

const units = new Map([
  ['s', 1],
  ['m', 60],
  ['h', 3600],
  ['d', 86_400],
]);

/** A year, in seconds: what is longer is a mistake in the unit. */
const longest = 365 * 86_400;

/**
 * A duration in seconds.
 * @param what names the duration in the error
 * @throws TypeError not a duration, negative, or more than a year
 */
export function secondsOf(duration: Duration, what: string): number {
  const [, digits, unit] = typeof duration === 'string' ? (/^(\d+(?:\.\d+)?)([smhd])$/.exec(duration) ?? []) : [];
  const seconds = typeof duration === 'number' ? duration : Number(digits) * (units.get(unit ?? '') ?? NaN);
  if (!(seconds >= 0 && seconds <= longest)) {
    throw new TypeError(
      `${what}: ${String(duration)} is no duration such as 30, '30s', '5m', '2h' or '1d' (at most 365d)`,
    );
  }
  return seconds;
}
