import { stopPostgres } from './postgres.js';
import { stopSharedRabbit } from './rabbitmq.js';

/**
 * Mocha's global fixtures (`require` in .mocharc.json). There is nothing to set up: the first test that asks for a database or a
 * broker starts it, so a file that needs none starts none.
 */
export async function mochaGlobalTeardown(): Promise<void> {
  await Promise.all([stopPostgres(), stopSharedRabbit()]);
}
