import { expect } from 'chai';
import { until } from '../until.js';
import { expectError, type Subject } from './subject.js';

/** What a watch tells. */
export function watches(subject: Subject): void {
  it('begins with the objects of now as ADDED and a bookmark that says so, then tells every change with the version before it', async () => {
    const { selector, objects } = await subject.crowd(2);
    const watch = await subject.watch(selector);
    await until(() => watch.lines.some(line => line.initialEventsEnd), { what: 'the objects of now' });
    const initial = watch.lines.splice(0);
    expect(initial.map(line => [line.type, line.object?.name])).to.deep.equal([
      ['ADDED', objects[0]?.name],
      ['ADDED', objects[1]?.name],
      ['BOOKMARK', undefined],
    ]);
    const changed = (await subject.patch(objects[0] ?? { name: '' }, subject.change)).body;
    const gone = (await subject.delete(objects[1] ?? { name: '' })).body;
    const events = () => watch.lines.filter(({ type }) => type !== 'BOOKMARK');
    await until(() => events().length === 2, { what: 'two events' });
    watch.close();
    expect(events().map(({ type, resourceVersion }) => [type, resourceVersion])).to.deep.equal([
      ['MODIFIED', changed.resourceVersion],
      ['DELETED', gone.resourceVersion],
    ]);
    expect(events()[0]?.object).to.deep.equal(changed);
    expect(events()[1]?.object).to.deep.include({ name: gone.name, resourceVersion: gone.resourceVersion });
    expect(Number(events()[1]?.previousResourceVersion)).to.be.at.least(Number(changed.resourceVersion));
  });

  it('from a version on tells the changes after it, and none before', async () => {
    const object = await subject.create();
    const { body } = await subject.patch(object, { labels: { a: 'b' } });
    const last = await subject.create();
    const events = await subject.eventsUntil(object.resourceVersion, last.name);
    expect(events.map(({ type, resourceVersion }) => [type, resourceVersion])).to.deep.equal([
      ['MODIFIED', body.resourceVersion],
      ['ADDED', last.resourceVersion],
    ]);
  });

  it('with a selector tells of what begins to match as ADDED, of what ends to match as DELETED with its former state', async () => {
    const label = subject.fresh('stage');
    const before = await subject.version();
    const object = await subject.create({ labels: { [label]: 'no' } });
    const began = (await subject.patch(object, { labels: { [label]: 'yes' } })).body;
    const ended = (await subject.patch(object, { labels: { [label]: 'no', more: '' } })).body;
    const last = await subject.create({ labels: { [label]: 'yes' } });
    const events = await subject.eventsUntil(before, last.name, `&labelSelector=${label}%3Dyes`);
    expect(events.map(({ type, resourceVersion }) => [type, resourceVersion])).to.deep.equal([
      ['ADDED', began.resourceVersion],
      ['DELETED', ended.resourceVersion],
      ['ADDED', last.resourceVersion],
    ]);
    expect(events[1]?.object).to.deep.include({ labels: { [label]: 'yes' } });
  });

  it('of a version that the log no longer reaches is 410 Expired, and begins anew from the version of a list', async () => {
    const { resourceVersion } = await subject.create();
    await subject.create();
    await subject.aged(async () => {
      const ask = `${subject.collection}?watch=true&resourceVersion=${resourceVersion}`;
      expectError(await subject.call('GET', ask), 410, 'Expired');
      const version = await subject.version();
      const next = await subject.create();
      const events = await subject.eventsUntil(version, next.name);
      expect(events.map(({ type, object }) => [type, object?.name])).to.deep.equal([['ADDED', next.name]]);
    });
  });

  it('of a version that was never given is 410, and takes neither pages nor orders', async () => {
    const ask = (query: string) => subject.call('GET', `${subject.collection}?watch=true&${query}`);
    expectError(await ask('resourceVersion=999999999'), 410, 'Expired');
    for (const query of ['limit=5', 'orderBy=name', 'fields=name']) expectError(await ask(query), 400, 'InvalidQuery');
  });
}
