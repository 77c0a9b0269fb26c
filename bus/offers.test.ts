import { expect } from 'chai';
import { Database } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Offers } from './offers.js';
import { Wakeups } from './wakeups.js';

describe('keys that a replica offers to the workers which wait in it', () => {
  let own: TestDatabase;
  let databases: Database[];
  let here: Wakeups;
  let elsewhere: Wakeups;
  let offers: Offers;
  /** The controllers that the other replica heard of, and the feeder. */
  let heard: string[];
  let fed: string[];

  before(async () => {
    own = await createDatabase();
    const log = () => undefined;
    databases = [1, 2].map(() => new Database({ connection: { connectionString: own.url }, log }));
  });
  beforeEach(async () => {
    [here, elsewhere] = databases.map(database => new Wakeups(database, () => undefined)) as [Wakeups, Wakeups];
    await here.start();
    await elsewhere.start();
    heard = [];
    fed = [];
    elsewhere.on('work:*', (_, controller = '') => heard.push(controller));
    offers = new Offers({ wakeups: here, feeder: { queued: controller => fed.push(controller) } });
    // It is heard that another one listens.
    await until(
      () => {
        here.tell('work:hello');
        return heard.includes('hello');
      },
      { what: 'a first word' },
    );
    heard = [];
  });
  afterEach(async () => {
    offers.stop();
    await here.stop();
    await elsewhere.stop();
  });
  after(async () => {
    await Promise.all(databases.map(database => database.stop()));
    await own.drop();
  });

  const rest = () => heard.filter(name => name !== 'hello');

  it('are told to the queue and the others at once where nobody waits', async () => {
    expect(offers.attended('lonely')).to.equal(false);
    offers.queued('lonely');
    expect(fed).to.deep.equal(['lonely']);
    await until(() => rest().includes('lonely'), { what: 'the word' });
    // Of what its queue has got already the others hear alone.
    offers.queued('served', { fed: true });
    await until(() => rest().includes('served'), { what: 'the next word' });
    expect(fed).to.deep.equal(['lonely']);
  });

  it('are told to them when they were not taken, and to nobody when they were', async () => {
    const woken: string[] = [];
    const leave = ['taken', 'left'].map(name => offers.attend(name, () => woken.push(name)));
    offers.queued('taken');
    offers.taken('taken', true);
    offers.queued('left');
    expect(woken).to.deep.equal(['taken', 'left']);
    expect(fed).to.deep.equal([]);
    await until(() => rest().length > 0, { what: 'a word' });
    expect({ heard: rest(), fed }).to.deep.equal({ heard: ['left'], fed: ['left'] });
    for (const one of leave) one();
  });

  it('are told to them when they came while those before were taken, and stayed', async () => {
    const leave = offers.attend('busy', () => undefined);
    offers.queued('busy');
    offers.queued('busy');
    offers.taken('busy', false);
    await until(() => rest().length > 0, { what: 'a word' });
    expect({ heard: rest(), fed }).to.deep.equal({ heard: ['busy'], fed: ['busy'] });
    leave();
  });

  it('wait for a worker that is about to come back, and are told to the others when it does not', async () => {
    offers.attend('back', () => undefined)();
    expect(offers.attended('back')).to.equal(true);
    offers.queued('back');
    let woken = 0;
    const leave = offers.attend('back', () => woken++);
    offers.queued('back');
    expect(woken).to.equal(1);
    offers.taken('back', true);
    leave();
    offers.queued('back');
    expect(fed).to.deep.equal([]);
    await until(() => !offers.attended('back'), { what: 'the end of the wait' });
    await until(() => rest().includes('back'), { what: 'the word' });
    expect({ heard: rest(), fed }).to.deep.equal({ heard: ['back'], fed: ['back'] });
  });

  it('of another replica come to whoever waits, as another’s', async () => {
    const woken: boolean[] = [];
    const leave = offers.attend('theirs', ours => woken.push(ours));
    elsewhere.wake('work:theirs');
    await until(() => woken.length > 0, { what: 'the word' });
    expect(woken).to.deep.equal([false]);
    leave();
  });

  it('are told to the others by a replica that stops', async () => {
    offers.attend('stopping', () => undefined);
    offers.queued('stopping');
    offers.stop();
    expect(fed).to.deep.equal(['stopping']);
    await until(() => rest().includes('stopping'), { what: 'the word' });
  });
});
