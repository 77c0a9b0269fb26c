import { isPlatformError, type Client, type Cluster } from '../client/index.js';
import { startControllers } from '../controllers/index.js';
import { now } from './clock.js';
import type { Program } from './program.js';
import { store, type Stored } from './store.js';

/** Objects to delete. */
const count = 10_000;

/**
 * 10,000 objects of 1 KB: deleted by a label, beside as many others; and as the dependents of an owner that is deleted in the
 * foreground, from the call to the moment when the owner is gone.
 */
export const deletion: Program = {
  name: 'deletion',
  about: 'many objects deleted with one call',
  async run(stage) {
    const api = await stage.api();
    const fill = async (set: string, more: Partial<Stored> = {}) =>
      store(await stage.database(), 'secrets', count, number => ({
        namespace: 'bench',
        name: `${set}-${number}`,
        labels: { set },
        ...more,
      }));
    const client = stage.client(api);

    stage.say(`storing ${3 * count} objects`);
    const owner = await client.clusters.create({ name: 'owner', namespace: 'bench' });
    await fill('other');
    await fill('selected');
    const { namespace, name, uid } = owner;
    await fill('owned', { owners: [{ type: 'clusters', namespace, name, uid, blockOwnerDeletion: true }] });

    stage.say(`deleting ${count} by selector`);
    const begun = now();
    const removed = await client.secrets.removeAll({ labelSelector: 'set=selected' });
    const bySelector = (now() - begun) / 1000;
    stage.windows.push({ from: begun, to: now() });
    if (removed !== count) throw new Error(`${removed} objects were deleted`);

    const controllers = startControllers({ apiUrl: api.url, log: () => undefined });
    await stage.own(async () => {
      await controllers.start();
      return controllers;
    });
    await atRest(client);
    stage.say(`deleting an owner of ${count} in the foreground`);
    const asked = now();
    await client.clusters.remove(owner, { propagationPolicy: 'Foreground' });
    while (await exists(client, owner)) await new Promise(resolve => setTimeout(resolve, 10));
    const foreground = (now() - asked) / 1000;
    stage.windows.push({ from: asked, to: now() });
    const { items } = await client.secrets.list({ labelSelector: 'set=owned', limit: 1 });
    if (items.length > 0) throw new Error('the owner went before its dependents');
    return [
      { what: '10k by selector', unit: 's', ours: { value: bySelector }, target: { atMost: 1.5 }, references: [] },
      { what: 'owner of 10k', unit: 's', ours: { value: foreground }, target: { atMost: 5 }, references: [] },
    ];
  },
};

/** The collector looks at everything that there is when it registers. */
async function atRest(client: Client): Promise<void> {
  for (;;) {
    const { queued, claimed } = await client.controllers.read('garbagecollector');
    if (queued + claimed === 0) return;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}

async function exists(client: Client, owner: Cluster): Promise<boolean> {
  try {
    await client.clusters.read(owner);
    return true;
  } catch (error) {
    if (isPlatformError(error, 'NotFound')) return false;
    throw error;
  }
}
