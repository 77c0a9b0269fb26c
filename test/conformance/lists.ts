import { expect } from 'chai';
import { expectError, type Subject } from './subject.js';

/** Selectors, pages, projections and orders. */
export function lists(subject: Subject): void {
  const { field, from, to } = subject.example.change;
  const names = (page: { items: { name: string }[] }) => page.items.map(({ name }) => name);

  it('a list has the objects as GET answers them, in the order of namespace and name, and a version', async () => {
    const { selector, objects } = await subject.crowd(3);
    const { items, resourceVersion, ...more } = await subject.list(selector);
    expect(items).to.deep.equal(objects);
    expect(Number(resourceVersion)).to.be.at.least(Number(objects[2]?.resourceVersion));
    expect(more).to.deep.equal({});
    const all = await subject.list('');
    const keys = all.items.map(item => [item.namespace ?? '', item.name] as const);
    const sorted = [...keys].sort(([a, b], [c, d]) => (a < c ? -1 : a > c ? 1 : b < d ? -1 : 1));
    expect(keys).to.deep.equal(sorted);
  });

  if (subject.definition.namespaced) {
    it('a list of a namespace has what lies in it alone', async () => {
      const { selector, objects } = await subject.crowd(2);
      await subject.post({ namespace: 'elsewhere', labels: objects[0]?.['labels'] });
      expect((await subject.list(`${selector}&namespace=conformance`)).items).to.deep.equal(objects);
      expect((await subject.list(`${selector}&namespace=elsewhere`)).items).to.have.length(1);
      expect((await subject.list(selector)).items).to.have.length(3);
    });
  }

  it('label selectors are =, ==, !=, in, notin, key and !key, joined by commas; != and notin match objects without the key', async () => {
    const { selector, objects } = await subject.crowd(3, i => ({
      labels: i === 0 ? {} : { tier: `t${i}`, [`k${i}`]: '' },
    }));
    const at = (...places: number[]) => places.map(place => objects[place]?.name);
    for (const [text, ...places] of [
      ['tier=t1', 1],
      ['tier==t1', 1],
      ['tier!=t1', 0, 2],
      ['tier in (t1,t2)', 1, 2],
      ['tier notin (t1)', 0, 2],
      ['tier', 1, 2],
      ['!tier', 0],
      ['tier,!k2', 1],
      ['tier=t1,tier=t2'],
      ['k1=', 1],
    ] as [string, ...number[]][]) {
      const page = await subject.list(`${selector}${encodeURIComponent(`,${text}`)}`);
      expect(names(page), text).to.deep.equal(at(...places));
    }
    for (const bad of ['a>1', 'a in b', '=', 'a b', 'a in ()x'])
      expectError(
        await subject.call('GET', `${subject.collection}?labelSelector=${encodeURIComponent(bad)}`),
        400,
        'InvalidQuery',
      );
  });

  it('field selectors are name, namespace, uid and any path of own fields, by =, !=, in, notin and ~', async () => {
    const { selector, objects } = await subject.crowd(2, i => (i === 0 ? {} : subject.change));
    const [first, second] = objects;
    const by = async (text: string) =>
      names(await subject.list(`${selector}&fieldSelector=${encodeURIComponent(text)}`));
    const escaped = (value: unknown) => String(value).replaceAll(',', '\\,');
    expect(await by(`${field}=${escaped(to)}`)).to.deep.equal([second?.name]);
    expect(await by(`${field}!=${escaped(to)}`)).to.deep.equal([first?.name]);
    expect(await by(`${field} in (${escaped(from)},${escaped(to)})`)).to.have.length(2);
    expect(await by(`${field} notin (${escaped(from)})`)).to.deep.equal([second?.name]);
    expect(await by(`${field}~${String(to).slice(1)},name=${second?.name}`)).to.deep.equal([second?.name]);
    expect(await by(`uid=${first?.uid}`)).to.deep.equal([first?.name]);
    if (subject.definition.namespaced) expect(await by('namespace=elsewhere')).to.deep.equal([]);
    expectError(await subject.call('GET', `${subject.collection}?fieldSelector=nope=1`), 400, 'InvalidQuery');
  });

  const { status } = subject.example;
  if (status) {
    it('field selectors reach into the status', async () => {
      const { selector, objects } = await subject.crowd(2);
      const [path, value] = Object.entries(status.first)[0] ?? [];
      const one = objects[1]?.name ?? '';
      await subject.put({ name: one }, { status: status.first }, '/status');
      expect(names(await subject.list(`${selector}&fieldSelector=status.${path}=${value}`))).to.deep.equal([one]);
    });
  }

  it('pages of limit objects follow each other by continue, all in the state of the first, and say how many remain', async () => {
    const { selector, objects } = await subject.crowd(5);
    const first = await subject.list(`${selector}&limit=2`);
    await subject.patch(objects[3] ?? { name: '' }, { labels: { late: 'yes' } });
    await subject.delete(objects[4] ?? { name: '' });
    await subject.create({ name: `${objects[2]?.name}a`, labels: objects[0]?.['labels'] });
    const second = await subject.list(`${selector}&limit=2&continue=${first.continue}`);
    const third = await subject.list(`${selector}&limit=2&continue=${second.continue}`);
    expect([...first.items, ...second.items, ...third.items]).to.deep.equal(objects);
    expect(new Set([first, second, third].map(({ resourceVersion }) => resourceVersion)).size).to.equal(1);
    expect(first.remainingItemCount).to.be.oneOf([3, undefined]);
    expect(second.remainingItemCount).to.equal(first.remainingItemCount === undefined ? undefined : 1);
    expect(third.continue).to.equal(undefined);
  });

  it('a continue token is good for the same selection only, and none that was made up', async () => {
    const { selector } = await subject.crowd(2);
    const page = await subject.list(`${selector}&limit=1`);
    const ask = (query: string) => subject.call('GET', `${subject.collection}?limit=1&${query}`);
    expect((await ask(`${selector}&continue=${page.continue}`)).status).to.equal(200);
    expectError(await ask(`continue=${page.continue}`), 400, 'InvalidQuery');
    expectError(await ask(`${selector}&continue=${page.continue}x`), 400, 'InvalidQuery');
    expectError(await ask('continue=bWFkZQ.dXA'), 400, 'InvalidQuery');
    for (const limit of ['0', '-1', '1.5', 'x', '10001'])
      expectError(await subject.call('GET', `${subject.collection}?limit=${limit}`), 400, 'InvalidQuery', ['limit']);
  });

  it('a list not older than a version shows it; of a version that was not given yet it is 410 Expired', async () => {
    const { name, resourceVersion } = await subject.create();
    const page = await subject.list(`resourceVersion=${resourceVersion}&fieldSelector=name%3D${name}`);
    expect(names(page)).to.deep.equal([name]);
    expectError(await subject.call('GET', `${subject.collection}?resourceVersion=999999999`), 410, 'Expired');
    expectError(await subject.call('GET', `${subject.collection}?resourceVersion=abc`), 400, 'InvalidQuery');
  });

  it('a page of a state that the log no longer reaches is 410 Expired, whose own token goes on in the state of now', async () => {
    const { selector, objects } = await subject.crowd(2);
    const first = await subject.list(`${selector}&limit=1`);
    const late = await subject.create({ name: `${objects[1]?.name}-late`, labels: objects[0]?.['labels'] });
    const expired = await subject.aged(async () => {
      const answer = await subject.call('GET', `${subject.collection}?${selector}&limit=1&continue=${first.continue}`);
      expect([answer.status, answer.body.error.code]).to.deep.equal([410, 'Expired']);
      const rest = await subject.list(`${selector}&continue=${answer.body.error.continue}`);
      expect(names(rest)).to.deep.equal([objects[1]?.name, late.name]);
      return rest;
    });
    expect(Number(expired.resourceVersion)).to.be.at.least(Number(late.resourceVersion));
  });

  it('fields= keeps the parts that are named, and which object in which version it is', async () => {
    const { selector, objects } = await subject.crowd(1, () => ({ annotations: { a: 'b' } }));
    const { items } = await subject.list(`${selector}&fields=${field},labels.in`);
    const [{ name, resourceVersion, namespace, labels } = await subject.create()] = objects;
    expect(items).to.deep.equal([
      { name, resourceVersion, labels, [field]: from, ...(namespace === undefined ? {} : { namespace }) },
    ]);
    expectError(await subject.call('GET', `${subject.collection}?fields=nope`), 400, 'InvalidQuery');
  });

  for (const index of subject.definition.indexes) {
    it(`orderBy=${index.field} orders both ways`, async () => {
      const values = [to, from, to];
      const { selector, objects } = await subject.crowd(3, i => (index.field === field ? { [field]: values[i] } : {}));
      const place = (i: number) => objects[i]?.name;
      const up = String(from) < String(to) ? [place(1), place(0), place(2)] : [place(0), place(2), place(1)];
      expect(names(await subject.list(`${selector}&orderBy=${index.field}`))).to.deep.equal(up);
      expect(names(await subject.list(`${selector}&orderBy=${index.field}%20desc`))).to.deep.equal([...up].reverse());
    });
  }

  it('orderBy takes nothing but indexed fields', async () => {
    expectError(await subject.call('GET', `${subject.collection}?orderBy=labels`), 400, 'InvalidQuery');
    expectError(await subject.call('GET', `${subject.collection}?orderBy=nope%20asc`), 400, 'InvalidQuery');
  });

  it('an unknown query parameter is refused, on lists and on every other route', async () => {
    const object = await subject.create();
    for (const answer of [
      await subject.call('GET', `${subject.collection}?nope=1`),
      await subject.post({}, { query: '?nope=1' }),
      await subject.get(object, '?nope=1'),
      await subject.put(object, object, '?nope=1'),
      await subject.patch(object, {}, '?nope=1'),
      await subject.delete(object, '?nope=1'),
    ])
      expectError(answer, 400, 'InvalidQuery', ['nope']);
  });
}
