// The door of the room, and what `syncsets/controllers` exports.
export {
  TerminalError,
  type Context,
  type Controller,
  type Result,
  type Targets,
  type Watch,
} from './runtime/controller.js';
export type { Duration } from './runtime/duration.js';
export type { Log } from './runtime/log.js';
export type { RateLimit } from './runtime/rate.js';
export { run, type RunOptions, type Running } from './runtime/runtime.js';
export type { Task, TaskContext } from './runtime/task.js';
export { startControllers, type ControllersSettings } from './start.js';
