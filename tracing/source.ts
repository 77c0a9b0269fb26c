import { randomBytes } from 'node:crypto';
import {
  context,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Attributes,
  type AttributeValue,
  type Context,
  type Exception,
  type HrTime,
  type Link,
  type Span,
  type SpanContext,
  type SpanOptions,
  type SpanStatus,
  type TimeInput,
  type Tracer,
  type TracerProvider,
} from '@opentelemetry/api';

/** A span that has ended. Times are nanoseconds since 1970. */
export interface EndedSpan {
  context: SpanContext;
  parentId: string | undefined;
  name: string;
  kind: SpanKind;
  begun: bigint;
  ended: bigint;
  attributes: Attributes;
  status: SpanStatus;
}

/**
 * Makes spans that are handed on when they end: the least that OpenTelemetry's API asks of a provider. Spans of a trace that
 * came from elsewhere are recorded if that is sampled, of new traces a share of them.
 */
export class SpanSource implements TracerProvider, Tracer {
  readonly #ratio: number;
  readonly #ended: (span: EndedSpan) => void;

  /** @param options.ratio share of new traces that is recorded, 0 to 1 */
  constructor(options: { ratio: number; ended: (span: EndedSpan) => void }) {
    this.#ratio = options.ratio;
    this.#ended = options.ended;
  }

  /** Makes this what `beginSpan`, and everybody who uses OpenTelemetry's API, gets spans from. */
  use(): void {
    trace.setGlobalTracerProvider(this);
  }

  getTracer(): Tracer {
    return this;
  }

  startSpan(name: string, options: SpanOptions = {}, from: Context = context.active()): Span {
    const parent = options.root ? undefined : trace.getSpanContext(from);
    const sampled = parent ? (parent.traceFlags & TraceFlags.SAMPLED) !== 0 : Math.random() < this.#ratio;
    const spanContext = {
      traceId: parent?.traceId ?? randomBytes(16).toString('hex'),
      spanId: randomBytes(8).toString('hex'),
      traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
    };
    if (!sampled) return trace.wrapSpanContext(spanContext);
    return new RecordedSpan(name, options, spanContext, parent?.spanId, this.#ended);
  }

  startActiveSpan<F extends (span: Span) => ReturnType<F>>(name: string, work: F): ReturnType<F>;
  startActiveSpan<F extends (span: Span) => ReturnType<F>>(name: string, options: SpanOptions, work: F): ReturnType<F>;
  startActiveSpan<F extends (span: Span) => ReturnType<F>>(
    name: string,
    options: SpanOptions,
    from: Context,
    work: F,
  ): ReturnType<F>;
  startActiveSpan<F extends (span: Span) => ReturnType<F>>(
    name: string,
    ...rest: [F] | [SpanOptions, F] | [SpanOptions, Context, F]
  ): ReturnType<F> {
    const work = rest[rest.length - 1] as F;
    const options = rest.length > 1 ? (rest[0] as SpanOptions) : {};
    const from = rest.length === 3 ? rest[1] : context.active();
    const span = this.startSpan(name, options, from);
    return context.with(trace.setSpan(from, span), () => work(span));
  }
}

class RecordedSpan implements Span {
  readonly #span: EndedSpan;
  readonly #onEnd: (span: EndedSpan) => void;
  readonly #since = process.hrtime.bigint();
  #open = true;

  constructor(
    name: string,
    { kind = SpanKind.INTERNAL, attributes, startTime }: SpanOptions,
    spanContext: SpanContext,
    parentId: string | undefined,
    onEnd: (span: EndedSpan) => void,
  ) {
    const begun = nanoseconds(startTime) ?? BigInt(Date.now()) * 1_000_000n;
    this.#span = {
      context: spanContext,
      parentId,
      name,
      kind,
      begun,
      ended: begun,
      attributes: { ...attributes },
      status: { code: SpanStatusCode.UNSET },
    };
    this.#onEnd = onEnd;
  }

  spanContext(): SpanContext {
    return this.#span.context;
  }

  isRecording(): boolean {
    return this.#open;
  }

  setAttribute(key: string, value: AttributeValue): this {
    return this.setAttributes({ [key]: value });
  }

  setAttributes(attributes: Attributes): this {
    Object.assign(this.#span.attributes, attributes);
    return this;
  }

  setStatus(status: SpanStatus): this {
    this.#span.status = status;
    return this;
  }

  updateName(name: string): this {
    this.#span.name = name;
    return this;
  }

  // Ours have neither; who wants them in spans of their own sets up a whole SDK.
  addEvent(): this {
    return this;
  }

  addLink(_link: Link): this {
    return this;
  }

  addLinks(_links: Link[]): this {
    return this;
  }

  recordException(exception: Exception): void {
    const message = typeof exception === 'string' ? exception : exception.message;
    this.setStatus({ code: SpanStatusCode.ERROR, ...(message === undefined ? {} : { message }) });
  }

  end(endTime?: TimeInput): void {
    if (!this.#open) return;
    this.#open = false;
    // By the monotonic clock: a clock that is set meanwhile makes no span of negative length.
    this.#span.ended = nanoseconds(endTime) ?? this.#span.begun + (process.hrtime.bigint() - this.#since);
    this.#onEnd(this.#span);
  }
}

function nanoseconds(time: TimeInput | undefined): bigint | undefined {
  if (time === undefined) return undefined;
  if (time instanceof Date) return BigInt(time.getTime()) * 1_000_000n;
  if (typeof time === 'number') return BigInt(Math.round(time * 1_000)) * 1_000n;
  const [seconds, more]: HrTime = time;
  return BigInt(seconds) * 1_000_000_000n + BigInt(more);
}
