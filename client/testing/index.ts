// The door of the test kit, and what `syncsets/client/testing` exports. The fake server beside it is for our own tests.
export { startPlatform, type PlatformOptions, type TestPlatform } from './platform.js';
export { until, type UntilOptions } from './until.js';
