// As much of PromQL as it takes to say which metrics and labels an expression relies on.

/** A metric that an expression reads, and the labels by which it selects. */
export interface Read {
  metric: string;
  labels: string[];
}

/** Labels that an expression groups or matches by, and the metrics that must have them. */
export interface Grouping {
  labels: string[];
  metrics: string[];
}

/** All metrics have these: Prometheus takes them from what it scrapes. */
export const targetLabels = ['pod', 'instance', 'job', 'namespace'];

const listed = (text = '') => text.match(/\w+/g) ?? [];
// Values may hold anything.
const bare = (expression: string) => expression.replace(/"[^"]*"/g, '""');

/** The metrics that an expression reads; all of ours have an underscore, as one of its functions has. */
export function readsOf(expression: string): Read[] {
  const without = bare(expression).replace(/\b(by|on|without|ignoring)\s*\([^)]*\)/g, ' ');
  return [...without.matchAll(/\b([a-z]+(?:_[a-z0-9]+)+)\b(?!\s*\()(?:\{([^}]*)\})?/g)].map(
    ([, metric = '', selector = '']) => ({
      metric,
      labels: [...selector.matchAll(/(\w+)\s*[=!]/g)].map(([, label = '']) => label),
    }),
  );
}

/** What an expression groups by (`by`, of what is in the parentheses behind it), and by what it matches (`on`, of all of it). */
export function groupingsOf(expression: string): Grouping[] {
  const text = bare(expression);
  const metrics = (part: string) => readsOf(part).map(({ metric }) => metric);
  return [...text.matchAll(/\b(by|on)\s*\(([^)]*)\)\s*/g)].map(({ 0: whole, 1: kind, 2: labels, index }) => ({
    labels: listed(labels),
    metrics: metrics(kind === 'on' ? text : enclosed(text.slice(index + whole.length))),
  }));
}

/** The labels that a result has, where that can be told: an aggregation leaves those that it groups by. */
export function labelsLeft(expression: string, labelsOf: (metric: string) => Iterable<string>): string[] {
  const grouped = [...bare(expression).matchAll(/\bby\s*\(([^)]*)\)/g)].flatMap(([, labels]) => listed(labels));
  if (grouped.length > 0) return grouped.filter(label => label !== 'le');
  if (/\b(sum|min|max|absent|histogram_quantile)\s*\(/.test(expression)) return [];
  return [...targetLabels, ...readsOf(expression).flatMap(({ metric }) => [...labelsOf(metric)])];
}

/** What a text that begins with a parenthesis holds up to its end. */
function enclosed(text: string): string {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '(') depth++;
    if (text[at] === ')' && --depth === 0) return text.slice(1, at);
  }
  throw new SyntaxError(`no end of the parenthesis: ${text}`);
}
