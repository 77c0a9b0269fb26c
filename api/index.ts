export { ApiServer, typeTables, type ApiOptions } from './server.js';
export { MissingEncryptionKey } from './secrets.js';
