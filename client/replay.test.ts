import { expect } from 'chai';
import { Replay, type WatchEvent } from './replay.js';
import type { Resource } from './resource.js';

describe('replay', () => {
  const object = (name: string, version: number, uid = `uid-${name}`): Resource => ({
    type: 'clusters',
    namespace: 'foo',
    name,
    uid,
    resourceVersion: String(version),
    generation: 1,
    createdAt: '2026-01-01T00:00:00Z',
    updatedAt: '2026-01-01T00:00:00Z',
  });
  const change = (type: 'ADDED' | 'MODIFIED' | 'DELETED', name: string, version: number): WatchEvent<Resource> => ({
    type,
    resourceVersion: String(version),
    object: object(name, version),
  });
  const told = (events: WatchEvent<Resource>[]) =>
    events.map(event => `${event.type} ${event.object.name} ${event.object.uid} ${event.resourceVersion}`);
  const list = (replay: Replay<Resource>, objects: Resource[], version: number) => {
    replay.beginList();
    const events = objects.flatMap(one =>
      replay.accept({ type: 'ADDED', resourceVersion: one.resourceVersion, object: one }),
    );
    const end = { type: 'BOOKMARK', resourceVersion: String(version), initialEventsEnd: true } as const;
    return told([...events, ...replay.accept(end)]);
  };

  it('tells the objects of now in any order of versions, and goes on from their version', () => {
    const replay = new Replay<Resource>();
    expect(list(replay, [object('a', 9), object('b', 3)], 12)).to.deep.equal(['ADDED a uid-a 9', 'ADDED b uid-b 3']);
    expect(replay.seen).to.equal('12');
  });

  it('tells no change twice, whatever the number of digits', () => {
    const replay = new Replay<Resource>('99');
    expect(told(replay.accept(change('MODIFIED', 'a', 99)))).to.deep.equal([]);
    expect(told(replay.accept(change('MODIFIED', 'a', 100)))).to.deep.equal(['MODIFIED a uid-a 100']);
    expect(told(replay.accept(change('MODIFIED', 'a', 100)))).to.deep.equal([]);
    expect(told(replay.accept(change('DELETED', 'a', 99)))).to.deep.equal([]);
  });

  it('moves on with bookmarks and never back', () => {
    const replay = new Replay<Resource>('7');
    replay.accept({ type: 'BOOKMARK', resourceVersion: '20' });
    replay.accept({ type: 'BOOKMARK', resourceVersion: '9' });
    expect(replay.seen).to.equal('20');
  });

  it('tells only the differences of a new list: new, changed, replaced, vanished', () => {
    const replay = new Replay<Resource>();
    list(replay, [object('same', 1), object('changed', 2), object('replaced', 3), object('gone', 4)], 5);
    replay.accept(change('ADDED', 'late', 6));
    const again = [object('same', 1), object('changed', 20), object('replaced', 21, 'uid-2'), object('new', 22)];
    expect(list(replay, again, 30)).to.deep.equal([
      'MODIFIED changed uid-changed 20',
      'DELETED replaced uid-replaced 21',
      'ADDED replaced uid-2 21',
      'ADDED new uid-new 22',
      'DELETED gone uid-gone 30',
      'DELETED late uid-late 30',
    ]);
  });

  it('follows a database that was restored to an older version', () => {
    const replay = new Replay<Resource>();
    list(replay, [object('a', 50)], 60);
    expect(list(replay, [object('a', 40)], 41)).to.deep.equal(['MODIFIED a uid-a 40']);
    expect(told(replay.accept(change('MODIFIED', 'a', 42)))).to.deep.equal(['MODIFIED a uid-a 42']);
  });

  it('begins a list again that broke in the middle, without telling anything twice', () => {
    const replay = new Replay<Resource>();
    replay.beginList();
    replay.accept({ type: 'ADDED', resourceVersion: '1', object: object('a', 1) });
    expect(list(replay, [object('a', 1), object('b', 2)], 3)).to.deep.equal(['ADDED b uid-b 2']);
  });
});
