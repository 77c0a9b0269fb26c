import { expect } from 'chai';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Connection } from 'rabbitmq-client';
import { connect, watch, type Client } from '../client/index.js';
import { EmbeddedPostgres } from '../db/index.js';
import { call, encryptionKey, spawnPlatform, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { startRabbit, type Rabbit } from './rabbitmq.js';
import { begin, createAndWait, said, status, stopped, type Started } from './started.js';
import { until } from './until.js';

describe('a platform', function () {
  this.timeout(60_000);

  describe('with a database that comes and goes', () => {
    let folder: string;
    let platform: Started;
    let url: string;
    let databaseUrl: string;
    let postgres: EmbeddedPostgres;
    let client: Client;

    /** Starts Postgres, at the second time on the port of the first. */
    async function startPostgres(): Promise<void> {
      postgres = new EmbeddedPostgres({ dataDir: folder, log: () => undefined, settings: { fsync: 'off' } });
      databaseUrl = (await postgres.start()).url;
    }

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'start-postgres-'));
      await chmod(folder, 0o711);
      await startPostgres();
      await postgres.stop();
    });

    after(async () => {
      await client.close();
      platform.child.kill('SIGTERM');
      expect(await platform.ended).to.equal(0);
      await postgres.stop();
      await rm(folder, { recursive: true, maxRetries: 10 });
    });

    it('says that it waits for it, can be stopped meanwhile, and starts when it comes', async () => {
      const env = { DATABASE_URL: databaseUrl, ENCRYPTION_KEY: encryptionKey.toString('base64') };
      const message = /database does not answer; check DATABASE_URL or POSTGRES_PARAMS/;
      const impatient = begin('api', env);
      platform = begin('run', env);
      for (const one of [impatient, platform]) {
        await until(() => said(one.output, message).length > 0, { what: 'the message', deadline: 30_000 });
      }
      impatient.child.kill('SIGINT');
      expect(await impatient.ended).to.equal(0);
      expect(impatient.errors).to.deep.equal([]);
      await startPostgres();
      const ready = await until(() => platform.output.find(line => line.startsWith('ready: ')), { what: 'ready' });
      url = ready.slice('ready: '.length);
      client = connect({ url, retrySeconds: 0 });
      expect(await status(url, '/readyz')).to.equal(200);
      expect(platform.output.join('\n')).not.to.include(new URL(databaseUrl).password);
    });

    it('answers 503 while it is away, lives, and goes on by itself when it is back', async () => {
      await createAndWait(client, 'before');
      const told: string[] = [];
      const end = new AbortController();
      const watching = (async () => {
        for await (const { object } of watch(client.clusters, { signal: end.signal })) told.push(object.name);
      })();
      await until(() => told.includes('before'), { what: 'the watch' });
      await postgres.stop();
      await until(async () => (await status(url, '/readyz')) === 503, { what: '/readyz to say 503' });
      expect(await status(url, '/healthz')).to.equal(200);
      const refused = await call(url, 'POST', '/v1/clusters', { name: 'meanwhile', namespace: 'foo' });
      expect(refused.status).to.equal(503);
      expect(refused.body.error).to.include({ code: 'Unavailable' });
      expect(refused.body.error.message).to.match(/^The database does not answer/);
      await startPostgres();
      await until(async () => (await status(url, '/readyz')) === 200, { what: '/readyz to say 200' });
      await createAndWait(client, 'after');
      await until(() => told.includes('after'), { what: 'the watch to go on' });
      expect(told).not.to.include('meanwhile');
      end.abort();
      await watching;
    });
  });

  describe('with a broker that does not answer', () => {
    let database: TestDatabase;
    let rabbit: Rabbit;
    let platform: TestProcess;

    before(async () => {
      [database, rabbit] = await Promise.all([createDatabase(), startRabbit()]);
      await rabbit.stop();
    });

    after(async () => {
      await platform.end('SIGTERM');
      await rabbit.close();
      await database.drop();
    });

    it('says so, works without it, and uses it when it comes', async () => {
      platform = await spawnPlatform('run', { DATABASE_URL: database.url, AMQP_URL: rabbit.url });
      const { url, output } = platform;
      const message = await until(() => said(output, /broker/)[0], { what: 'a message about the broker' });
      expect(message).to.include({ level: 'warn' });
      expect(JSON.stringify(message))
        .to.match(/AMQP_URL/)
        .and.to.match(/ECONNREFUSED/);
      const { body, status: ready } = await call(url, 'GET', '/readyz');
      expect([ready, body.broker]).to.deep.equal([200, 'away']);

      const client = connect({ url });
      const told: string[] = [];
      const end = new AbortController();
      const watching = (async () => {
        for await (const { object } of watch(client.clusters, { signal: end.signal })) told.push(object.name);
      })();
      await createAndWait(client, 'alone');
      await until(() => told.includes('alone'), { what: 'the watch' });

      await rabbit.start();
      await until(async () => (await call(url, 'GET', '/readyz')).body.broker === 'ok', {
        what: 'the platform to find the broker',
        deadline: 20_000,
      });
      const exchange = 'syncsets.events.clusters';
      const broker = new Connection(rabbit.url);
      broker.on('error', () => undefined);
      const heard: string[] = [];
      const queue = { queue: '', queueOptions: { exclusive: true }, queueBindings: [{ exchange }] };
      const consumer = broker.createConsumer(
        { ...queue, exchanges: [{ exchange, type: 'fanout', durable: true }] },
        ({ body: event }: { body?: { object: { name: string } } }) => void heard.push(event?.object.name ?? ''),
      );
      await once(consumer, 'ready');
      await createAndWait(client, 'together');
      await until(() => heard.includes('together'), { what: 'the event on RabbitMQ' });
      end.abort();
      await watching;
      await consumer.close();
      await broker.close();
      await client.close();
    });

    it('says that it is refused when the password is wrong, without showing it', async () => {
      const wrong = rabbit.url.replace('guest:guest', 'guest:hunter22');
      const api = await spawnPlatform('api', { DATABASE_URL: database.url, AMQP_URL: wrong });
      try {
        const message = await until(() => said(api.output, /broker/)[0], { what: 'a message about the broker' });
        expect(JSON.stringify(message)).to.match(/ACCESS_REFUSED/);
      } finally {
        expect(await stopped(api)).to.equal(0);
      }
      expect(api.output.join('\n')).not.to.include('hunter22');
    });
  });
});
