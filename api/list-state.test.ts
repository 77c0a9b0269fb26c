import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

/** 100,000 shows more of it and takes minutes. */
const objects = Number(process.env['LIST_OBJECTS'] ?? 3_000);

interface Item {
  name: string;
  namespace: string;
  resourceVersion: string;
  labels?: Record<string, string>;
  context?: string;
}

describe('a list in pages, while writers change, create and delete', function () {
  this.timeout(180_000 + objects * 10);
  let api: TestApi;
  /** Every answer to a write: what an object was from a version on, undefined for deleted. */
  const history = new Map<string, { version: number; object: Item | undefined }[]>();
  let writing = true;
  let writers: Promise<void>[] = [];
  /** How many writes each writer has had an answer to. */
  const writes = Array<number>(8).fill(0);

  const keyOf = ({ namespace, name }: { namespace: string; name: string }) => `${namespace}/${name}`;
  const record = (object: Item, gone = false) => {
    const entries = history.get(keyOf(object)) ?? [];
    history.set(keyOf(object), entries);
    entries.push({ version: Number(object.resourceVersion), object: gone ? undefined : object });
  };

  before(async () => {
    api = await startApi();
    let next = 0;
    const creator = async () => {
      for (let i = next++; i < objects; i = next++) record(await create(i));
    };
    await Promise.all(Array.from({ length: 32 }, creator));
    writers = writes.map((_, i) => write(i));
  });

  after(async () => {
    writing = false;
    await Promise.all(writers);
    await api.stop();
  });

  const nameOf = (i: number) => ({ name: `c${i}`, namespace: `n${i % 7}` });

  async function create(i: number): Promise<Item> {
    const labels = { third: String(i % 3), rare: String(i % 300) };
    const { status, body } = await api.call('POST', '/v1/clusters', { ...nameOf(i), labels, context: 'new' });
    expect(status, JSON.stringify(body)).to.equal(201);
    return body;
  }

  /** Each writer has keys of its own, so that its answers come in the order of their versions. */
  async function write(writer: number): Promise<void> {
    let random = writer + 1;
    const dice = (sides: number) => (random = (random * 48_271) % 2_147_483_647) % sides;
    const own = Array.from({ length: Math.floor((objects * 1.2) / 8) }, (_, i) => i * 8 + writer);
    while (writing) {
      const i = own[dice(own.length)] ?? 0;
      const { name, namespace } = nameOf(i);
      const path = `/v1/clusters/${namespace}/${name}`;
      const last = history.get(`${namespace}/${name}`)?.at(-1)?.object;
      const what = dice(4);
      if (!last) record(await create(i));
      else if (what === 0) record((await api.call('DELETE', path)).body, true);
      else if (what === 1) record((await api.call('PATCH', path, { labels: { third: String(dice(3)) } })).body);
      else record((await api.call('PATCH', path, { context: `changed ${writes[writer]}` })).body);
      writes[writer] = (writes[writer] ?? 0) + 1;
    }
  }

  /** What the writers' answers say was there at a version. */
  function stateAt(version: number, wanted: (item: Item) => boolean): Item[] {
    const all = [...history.values()].flatMap(entries => {
      const known = entries.filter(entry => entry.version <= version).at(-1)?.object;
      return known && wanted(known) ? [known] : [];
    });
    return all.sort((a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name));
  }

  const sum = () => writes.reduce((all, one) => all + one, 0);
  /** Waits for the answers to what was under way: the list may have seen it. */
  const settled = async () => {
    const marks = [...writes];
    await until(() => marks.every((mark, i) => (writes[i] ?? 0) > mark + 1), { what: 'every writer' });
  };
  const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

  for (const [title, query, wanted] of [
    ['whole', '', () => true],
    ['by a label that a third has', 'labelSelector=third=1', item => item.labels?.['third'] === '1'],
    [
      'by a label that few have',
      'labelSelector=rare in (1,2,3,4,5,6,7,8)',
      item => /^[1-8]$/.test(item.labels?.['rare'] ?? ''),
    ],
    ['by a field', 'fieldSelector=context~changed', item => item.context?.includes('changed') === true],
    ['of one namespace', 'namespace=n3', item => item.namespace === 'n3'],
  ] as [string, string, (item: Item) => boolean][]) {
    it(`shows exactly one state of the past, ${title}`, async () => {
      const items: Item[] = [];
      const limit = title === 'whole' ? 500 : 30;
      let page: { items: Item[]; resourceVersion: string; continue?: string } | undefined;
      const begun = sum();
      let pages = 0;
      do {
        const more = page?.continue === undefined ? '' : `&continue=${page.continue}`;
        const { status, body } = await api.call('GET', `/v1/clusters?limit=${limit}&${query}${more}`);
        expect(status, JSON.stringify(body.error)).to.equal(200);
        if (page) expect(body.resourceVersion).to.equal(page.resourceVersion);
        page = body as NonNullable<typeof page>;
        items.push(...page.items);
        await until(() => sum() > begun + pages * 10, { what: 'writes between pages' });
        pages++;
      } while (page.continue !== undefined);
      await settled();
      const expected = stateAt(Number(page.resourceVersion), wanted);
      expect(items.map(keyOf)).to.deep.equal(expected.map(keyOf));
      expect(items).to.deep.equal(expected);
    });
  }

  it('shows one state in one long answer too', async () => {
    const { body } = await api.call('GET', '/v1/clusters');
    await settled();
    expect(body.items).to.deep.equal(stateAt(Number(body.resourceVersion), () => true));
  });
});
