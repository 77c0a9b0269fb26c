import type { LogEvent } from '../db/index.js';

/** A key on its way to a worker, or the news that a watched type has events to map. */
export type WorkMessage =
  | {
      type: string;
      namespace: string;
      name: string;
      uid: string | null;
      version: number | null;
      /** The trace of the change that it was queued for, where that is traced; a header, as of events. */
      traceparent?: string | undefined;
    }
  | { map: string };

/** Objects beyond this many bytes stay out of messages, which then say `truncated`: brokers are no object stores. */
const largestObject = 64 * 1024;

/** What a message on a controller's queue says. */
export function workBody(message: WorkMessage): Buffer {
  if ('map' in message) return Buffer.from(JSON.stringify(message));
  const { type, namespace, name, uid, version } = message;
  return Buffer.from(
    JSON.stringify({
      type,
      ...(namespace === '' ? {} : { namespace }),
      name,
      uid,
      resourceVersion: version === null ? null : String(version),
    }),
  );
}

/**
 * What a message on a type's exchange says: JSON that begins with `head`, goes on with `object`, which may be empty, and ends with a
 * brace. `size`: of all three, in bytes.
 */
export function eventText(type: string, event: LogEvent): { head: string; object: string; size: number } {
  const { op, version, previous, object } = event;
  const bytes = Buffer.byteLength(object);
  const large = bytes > largestObject;
  const start = `{"op":"${op}","type":"${type}","resourceVersion":"${version}","previousResourceVersion":"${previous}",`;
  const head = start + (large ? '"truncated":true' : '"object":');
  return { head, object: large ? '' : object, size: Buffer.byteLength(head) + (large ? 0 : bytes) + 1 };
}
