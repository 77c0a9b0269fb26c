export { Bus, type BusOptions } from './bus.js';
export { eventExchange, workQueue } from './rabbitmq.js';
export type { Tail } from './tail.js';
