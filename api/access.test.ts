import { expect } from 'chai';
import { request } from 'node:http';
import { call, startApi, type TestApi } from '../test/platform.js';

const token = 'a-token-of-some-length';

/** fetch sets Host and Origin by itself; a page that attacks does not. */
function status(url: string, headers: Record<string, string>): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(`${url}/v1`, { headers }, response => resolve(response.resume().statusCode))
      .on('error', reject)
      .end();
  });
}

describe('access', () => {
  describe('with a token', () => {
    let api: TestApi;
    before(async () => {
      api = await startApi({ token });
    });
    after(() => api.stop());

    it('is refused without it, with another one and with half of it', async () => {
      for (const headers of [
        {},
        { Authorization: 'Bearer another-token-entirely' },
        { Authorization: `Bearer ${token.slice(0, 10)}` },
        { Authorization: `Basic ${token}` },
      ]) {
        const answer = await call(api.url, 'GET', '/v1/clusters', undefined, headers as Record<string, string>);
        expect([answer.status, answer.body.error.code]).to.deep.equal([401, 'Unauthorized']);
        expect(answer.headers.get('www-authenticate')).to.equal('Bearer');
      }
    });

    it('is granted with it', async () => {
      expect(
        (await call(api.url, 'GET', '/v1/clusters', undefined, { Authorization: `Bearer ${token}` })).status,
      ).to.equal(200);
    });

    it('needs none for health, and one for metrics and documentation', async () => {
      for (const [path, expected] of [
        ['/healthz', 200],
        ['/readyz', 200],
        ['/metrics', 401],
        ['/docs/', 401],
        ['/openapi.json', 401],
      ] as const) {
        expect((await call(api.url, 'GET', path)).status, path).to.equal(expected);
      }
    });
  });

  describe('without a token', () => {
    let api: TestApi;
    before(async () => {
      api = await startApi();
    });
    after(() => api.stop());

    it('is open to local programs, by each name of this machine', async () => {
      const { port } = new URL(api.url);
      for (const host of ['localhost', '127.0.0.1', '[::1]'])
        expect(await status(api.url, { Host: `${host}:${port}` }), host).to.equal(200);
    });

    it('is closed to web pages: of other origins, and of names that were made to point here', async () => {
      expect(await status(api.url, { Origin: 'https://evil.example' })).to.equal(403);
      expect(await status(api.url, { Origin: 'null' })).to.equal(403);
      expect(await status(api.url, { Host: 'evil.example' })).to.equal(403);
    });

    it('lets its own documentation page in', async () => {
      const { host } = new URL(api.url);
      expect(await status(api.url, { Host: host, Origin: `http://${host}` })).to.equal(200);
      const page = await call(api.url, 'GET', '/docs/');
      expect(page.body).to.include('swagger-ui');
      expect(page.body).not.to.match(/(src|href)="https?:/);
      for (const asset of ['swagger-ui-bundle.js', 'swagger-ui.css', 'swagger-initializer.js']) {
        expect((await call(api.url, 'GET', `/docs/${asset}`)).status, asset).to.equal(200);
      }
    });
  });
});
