import type { AttributeValue } from '@opentelemetry/api';
import type { EndedSpan } from './source.js';

/** Spans in one request, and how many may wait: about 5 MB. What comes beyond that is dropped and counted. */
const batch = 512;
const longestQueue = 10_000;
/** Milliseconds that an attempt may take, and a stop with all that is sent then. */
const patience = 10_000;
const farewell = 3_000;
/** Longest pause between two attempts, in milliseconds. */
const longestPause = 30_000;

/** Where spans go, and what is said with them. */
export interface ExporterOptions {
  /** Base URL of a collector; `/v1/traces` is put behind it. */
  endpoint: string;
  /** Sent along, for example a token. */
  headers: Record<string, string>;
  /** `service.name` and what else is the same for all spans of the process. */
  resource: Record<string, string>;
  /** Milliseconds that a span waits for company, and the first pause after a failure. Default 1,000. */
  interval?: number;
  log: (level: 'warn' | 'info', message: string, fields: Record<string, unknown>) => void;
}

/**
 * Sends spans to an OpenTelemetry collector as OTLP/HTTP in JSON. A collector that is away costs spans, never requests: they
 * wait in a bounded queue and are sent again with growing pauses.
 */
export class Exporter {
  readonly #options: ExporterOptions;
  readonly #url: string;
  readonly #interval: number;
  /** Ends the attempts of a stop. */
  readonly #late = new AbortController();
  #stopped: Promise<void> | undefined;
  #queue: EndedSpan[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> | undefined;
  #failures = 0;
  #dropped = 0;

  constructor(options: ExporterOptions) {
    this.#options = options;
    this.#interval = options.interval ?? 1_000;
    this.#url = `${options.endpoint.replace(/\/+$/, '')}/v1/traces`;
  }

  /** Takes a span; never waits. */
  add(span: EndedSpan): void {
    if (this.#queue.length >= longestQueue) {
      this.#dropped++;
      return;
    }
    this.#queue.push(span);
    if (this.#failures === 0 && this.#queue.length >= batch) this.#sending ??= this.#send();
    else this.#wait(this.#interval);
  }

  /** Sends what waits, one attempt for each request, within 3 s in all; may be called more than once. */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#finish());
  }

  async #finish(): Promise<void> {
    clearTimeout(this.#timer);
    const late = setTimeout(() => this.#late.abort(new Error(`no answer within ${farewell / 1_000} s`)), farewell);
    await this.#sending;
    if (this.#queue.length > 0) await this.#send();
    clearTimeout(late);
  }

  #wait(milliseconds: number): void {
    if (this.#timer || this.#sending || this.#stopped) return;
    // A process that is about to end says stop; this timer alone must not keep it.
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#sending ??= this.#send();
    }, milliseconds).unref();
  }

  async #send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#queue.length > 0) {
      const spans = this.#queue.slice(0, batch);
      const error = await this.#post(spans);
      if (error === undefined || error.final) this.#queue.splice(0, spans.length);
      this.#report(error, spans.length);
      if (error) break;
    }
    this.#sending = undefined;
    if (this.#queue.length > 0) this.#wait(this.#pause());
  }

  /** Undefined when the collector took them; `final` when it will never take them. */
  async #post(spans: EndedSpan[]): Promise<{ reason: string; final: boolean } | undefined> {
    const { headers, resource } = this.#options;
    const body = {
      resourceSpans: [
        {
          resource: { attributes: attributesOf(resource) },
          scopeSpans: [{ scope: { name: 'syncsets' }, spans: spans.map(wire) }],
        },
      ],
    };
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: AbortSignal.any([AbortSignal.timeout(patience), this.#late.signal]),
      });
      await response.arrayBuffer();
      if (response.ok) return undefined;
      // The retryable ones of the OTLP specification.
      return { reason: `status ${response.status}`, final: ![429, 502, 503, 504].includes(response.status) };
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      return { reason: cause instanceof Error ? cause.message : String(cause), final: false };
    }
  }

  #pause(): number {
    if (this.#failures === 0) return this.#interval;
    const longest = Math.min(longestPause, this.#interval * 2 ** Math.min(this.#failures, 10));
    return longest * (1 - Math.random() / 2);
  }

  /** One line for each outage, not for each attempt. */
  #report(error: { reason: string; final: boolean } | undefined, spans: number): void {
    const { log, endpoint } = this.#options;
    if (error?.final) this.#dropped += spans;
    if (error && this.#failures++ === 0) {
      log('warn', 'the collector takes no spans; check OTEL_EXPORTER_OTLP_ENDPOINT', {
        endpoint: new URL(endpoint).origin,
        reason: error.reason,
      });
    } else if (!error && this.#failures > 0) {
      this.#failures = 0;
      log('info', 'the collector takes spans again', { dropped: this.#dropped });
      this.#dropped = 0;
    }
  }
}

/** A span in the JSON form of OTLP 1: ids in hex, times as decimal strings. */
function wire(span: EndedSpan): object {
  const { context, parentId, name, kind, begun, ended, attributes, status } = span;
  return {
    traceId: context.traceId,
    spanId: context.spanId,
    ...(parentId === undefined ? {} : { parentSpanId: parentId }),
    name,
    // The API counts from 0 (internal), the protocol keeps 0 for "not said".
    kind: kind + 1,
    startTimeUnixNano: String(begun),
    endTimeUnixNano: String(ended),
    attributes: attributesOf(attributes),
    status: { code: status.code, ...(status.message === undefined ? {} : { message: status.message }) },
  };
}

function attributesOf(attributes: Record<string, AttributeValue | undefined>): object[] {
  return Object.entries(attributes).flatMap(([key, value]) =>
    value === undefined ? [] : [{ key, value: valueOf(value) }],
  );
}

function valueOf(value: AttributeValue): object {
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number') return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  return { arrayValue: { values: value.flatMap(one => (one === null || one === undefined ? [] : [valueOf(one)])) } };
}
