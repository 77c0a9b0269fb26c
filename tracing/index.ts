// The door of the room: spans by OpenTelemetry's API, and who exports them when the process is told to.
export { Exporter, type ExporterOptions } from './exporter.js';
export { SpanSource } from './source.js';
export { beginSpan, isTraceparent, type OpenSpan } from './span.js';
