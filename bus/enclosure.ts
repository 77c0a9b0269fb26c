import { isLogEvent, type LogEvent } from '../db/index.js';

// Events in a notification, three lines each: all but the JSON of the object, the object, its former fields or nothing. Those two
// are text that nobody has to parse on the way.

/** Writes events of a type for a notification; undefined when there are none, or when they take more than so many bytes. */
export function enclose(type: string, events: readonly LogEvent[], most: number): string | undefined {
  const lines: string[] = [];
  let length = 0;
  for (const { object, before, ...rest } of events) {
    const own = [JSON.stringify({ type, ...rest }), object, before ?? ''];
    // JSON that somebody wrote over several lines is no line.
    if (object.includes('\n') || before?.includes('\n')) return undefined;
    length += own.reduce((sum, line) => sum + Buffer.byteLength(line) + 1, 0);
    if (length > most) return undefined;
    lines.push(...own);
  }
  return lines.length === 0 ? undefined : lines.join('\n');
}

/**
 * Reads what `enclose` wrote, several times one after the other: by type the stretches of its log that it holds. Batches may be
 * told of in another order than they were committed in, and others may have written between them. undefined: it is something else.
 */
export function disclose(text: string): Map<string, LogEvent[][]> | undefined {
  const stretches = new Map<string, LogEvent[][]>();
  const lines = text.split('\n');
  for (let i = 0; i < lines.length; i += 3) {
    const [head = '', object = '', before = ''] = lines.slice(i, i + 3);
    const { type, ...event } = { ...readHead(head), object, before: before === '' ? null : before };
    if (typeof type !== 'string' || !isLogEvent(event)) return undefined;
    const known = stretches.get(type) ?? [];
    stretches.set(type, known);
    const latest = known.at(-1);
    if (latest && latest.at(-1)?.version === event.previous) latest.push(event);
    else known.push([event]);
  }
  return stretches;
}

function readHead(line: string): { type?: unknown } {
  try {
    const head: unknown = JSON.parse(line);
    return typeof head === 'object' && head !== null ? head : {};
  } catch {
    return {};
  }
}
