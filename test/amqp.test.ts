import { expect } from 'chai';
import { brokerAddress } from '../amqp.js';

describe('the address of a RabbitMQ cluster', () => {
  it('is tried in turn, and not by all from the same node', () => {
    const text = ['a', 'b:5673', 'c'].map(host => `amqp://user:password@${host}/space`).join(',');
    const orders = new Set(Array.from({ length: 200 }, () => brokerAddress(text).hosts?.join(' ')));
    expect([...orders]).to.have.members(['a b:5673 c', 'b:5673 c a', 'c a b:5673']);
  });
});
