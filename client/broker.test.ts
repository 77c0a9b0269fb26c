import { expect } from 'chai';
import { sharedRabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Broker } from './broker.js';

describe('broker', () => {
  it('leaves no timer that keeps the process alive after it was closed', async function () {
    this.timeout(60_000);
    const { url } = await sharedRabbit();
    const timers = () => process.getActiveResourcesInfo().filter(resource => resource === 'Timeout').length;
    const before = timers();
    const broker = new Broker(url, { info: () => undefined, warn: () => undefined });
    const subscription = broker.consume(
      { queue: '', queueOptions: { exclusive: true } },
      () => undefined,
      () => Promise.resolve('taken'),
    );
    await until(() => subscription.ready, { what: 'the queue' });
    await subscription.close();
    await broker.close();
    expect(timers()).to.be.at.most(before);
  });
});
