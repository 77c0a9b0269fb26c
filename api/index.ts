export { ApiServer, typeTables, type ApiOptions } from './server.js';
export type { TypeDefinition } from './type-definition.js';
export { MissingEncryptionKey } from './secrets.js';
