export { Bus, type BrokerState, type BusOptions } from './bus.js';
export type { Tail } from './tail.js';
