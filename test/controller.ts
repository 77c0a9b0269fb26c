import { expect } from 'chai';
import type { TestApi } from './platform.js';
import { until } from './until.js';

/** A claim as it is answered; which fields there are depends on its kind. */
export interface TestClaim {
  token: string;
  kind: 'key' | 'map';
  type: string;
  namespace: string;
  name: string;
  object: { name: string; labels?: Record<string, string> } | null;
  attempts: number;
  reason: string;
}

/** A controller as a program without our client has it: over plain HTTP, call by call. */
export class TestController {
  readonly path: string;

  constructor(
    readonly api: TestApi,
    readonly name: string,
  ) {
    this.path = `/v1/controllers/${name}`;
  }

  /** Registers it and gets the objects that there are out of the way. */
  async register(fields: object = {}): Promise<void> {
    const answer = await this.api.call('PUT', this.path, { type: 'clusters', ...fields });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    await this.done(await this.claim({ max: 1_000 }));
  }

  /** Claims as worker `w1` unless said otherwise. */
  async claim(fields: object = {}): Promise<TestClaim[]> {
    const answer = await this.api.call('POST', `${this.path}/claims`, { worker: 'w1', max: 100, ...fields });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    return answer.body.claims;
  }

  /** Reports the same result of all; returns `ok` or `fenced` for each. */
  async done(claims: { token: string }[], result: object = { result: 'done' }): Promise<string[]> {
    if (claims.length === 0) return [];
    const results = claims.map(({ token }) => ({ token, ...result }));
    const answer = await this.api.call('POST', `${this.path}/claims/done`, { results });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    return answer.body.results.map((one: { state: string }) => one.state);
  }

  async enqueue(body: object): Promise<number> {
    const answer = await this.api.call('POST', `${this.path}/enqueue`, body);
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    return answer.body.count;
  }

  async view(): Promise<Record<string, number> & { lastSeenAt: string }> {
    return (await this.api.call('GET', this.path)).body;
  }

  /** Waits until so many keys are queued. */
  async queued(keys: number): Promise<void> {
    await until(async () => (await this.view()).queued === keys, { what: `${keys} queued keys`, deadline: 20_000 });
  }

  async remove(): Promise<void> {
    await this.api.call('DELETE', this.path);
  }
}
