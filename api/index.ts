export { ApiServer, typeTables, type ApiOptions } from './server.js';
export type { TypeDefinition } from './type-definition.js';
export { MissingEncryptionKey, Secrets } from './secrets.js';
export { KeyStillInUse, rotateKey, type Rotation } from './rotation.js';
