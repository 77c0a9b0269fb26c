import { isMet, ratio, type Figure, type Measure } from './program.js';

const head = ['program', 'measured', 'ours', 'reference', 'theirs', 'ratio', 'target', 'met'];
/** Columns of figures, which are aligned at their last digit. */
const right = new Set(['ours', 'theirs', 'ratio', 'target']);

/** One aligned table of all measures: a line per reference, `ratio` = how many times better ours is. */
export function table(results: { program: string; measure: Measure }[]): string {
  const rows = results.flatMap(({ program, measure }) => linesOf(program, measure));
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map(row => row[at]?.length ?? 0)));
  const line = (cells: string[]) =>
    cells
      .map((cell, at) => (right.has(head[at] ?? '') ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0)))
      .join('  ')
      .trimEnd();
  return [line(head), widths.map(width => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

/** A figure with its unit: `4,812/s`, `0.98 ms (p99 2.10)`. */
export function show({ value, p99 }: Figure, unit: Measure['unit']): string {
  const main = unit === '1/s' ? `${number(value)}/s` : `${number(value)} ${unit}`;
  return p99 === undefined ? main : `${main} (p99 ${number(p99)})`;
}

function linesOf(program: string, measure: Measure): string[][] {
  const { what, unit, ours, target, references } = measure;
  const met = isMet(measure);
  const own = target
    ? ['atLeast' in target ? `≥ ${number(target.atLeast)}` : `≤ ${number(target.atMost)}`, met === true ? 'yes' : 'NO']
    : undefined;
  const named = [program, what, show(ours, unit)];
  const lines = references.map(({ name, figure, atLeast }) => {
    const times = ratio(measure, figure);
    const goal = atLeast === undefined ? ['', ''] : [`≥ ${number(atLeast)} ×`, times >= atLeast ? 'yes' : 'NO'];
    return { cells: [name, show(figure, unit), times.toFixed(2)], goal };
  });
  // Both kinds of target on one line would not fit: the absolute one then has a line of its own.
  const [first] = lines;
  if (first === undefined || (own && first.goal[0] !== '')) lines.unshift({ cells: ['', '', ''], goal: ['', ''] });
  return lines.map(({ cells, goal }, at) => [
    ...(at === 0 ? named : ['', '', '']),
    ...cells,
    ...(at === 0 ? (own ?? goal) : goal),
  ]);
}

/** Three significant digits below a hundred, whole above. */
function number(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
