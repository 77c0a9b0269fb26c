import { expect } from 'chai';
import { call, spawnPlatform, type TestApi, type TestProcess } from '../platform.js';
import type { Subject } from './subject.js';

/** Lists over several servers, of which the second is a process that starts when they have begun: it shares the database alone. */
export function replicas(subjects: Subject[], server: () => TestApi): void {
  /** By type: a list of three objects, what was read of it, and the token of its next page. */
  const lists = new Map<string, { path: string; objects: unknown[]; seen: unknown[]; token: string | undefined }>();
  let replica: TestProcess;

  /** Takes the next page of a type's list from a server. */
  const turn = async ({ type }: Subject, url: string) => {
    const list = lists.get(type);
    if (!list) throw new Error(`no list of ${type} has begun`);
    const { status, body } = await call(url, 'GET', `${list.path}&limit=1&continue=${list.token}`);
    expect(status, JSON.stringify(body)).to.equal(200);
    list.seen.push(...(body.items as unknown[]));
    list.token = body.continue as string | undefined;
    return list;
  };

  before(async () => {
    for (const subject of subjects) {
      const { selector, objects } = await subject.crowd(3);
      const first = await subject.list(`${selector}&limit=1`);
      const path = `${subject.collection}?${selector}`;
      lists.set(subject.type, { path, objects, seen: first.items, token: first.continue });
    }
    replica = await spawnPlatform('api', { DATABASE_URL: server().databaseUrl });
  });
  after(() => replica.end('SIGKILL'));

  for (const subject of subjects) {
    it(`goes on with a list of ${subject.type} that another one has begun`, async () => {
      const { seen, objects } = await turn(subject, replica.url);
      expect(seen).to.deep.equal(objects.slice(0, 2));
    });
  }

  describe('that has been killed', () => {
    before(() => replica.end('SIGKILL'));
    for (const subject of subjects) {
      it(`leaves lists of ${subject.type} that the others end`, async () => {
        const { seen, objects, token } = await turn(subject, server().url);
        expect(seen).to.deep.equal(objects);
        expect(token).to.equal(undefined);
      });
    }
  });
}
