export { Parts } from './parts.js';
export { ends, readRole, servesApi } from './role.js';
export { StartError } from './start-error.js';
export { start } from './start.js';
