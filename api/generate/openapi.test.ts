import { Validator } from '@seriousme/openapi-schema-validator';
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { types } from '../../build/types.js';
import type { Document, Operation } from './document.js';

const document = JSON.parse(readFileSync(join(import.meta.dirname, '../../build/openapi.json'), 'utf8')) as Document;
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

/** Follows references through the document; throws where one leads nowhere. */
function resolve(node: unknown): Record<string, unknown> {
  if (typeof node !== 'object' || node === null) return expect.fail(`${String(node)} is no object`);
  const reference: unknown = Reflect.get(node, '$ref');
  if (typeof reference !== 'string') return { ...node };
  let found: unknown = document;
  for (const part of reference.slice(2).split('/')) found = resolve(found)[part];
  return resolve(found);
}

const get = (path: string, method: string): Operation =>
  document.paths[path]?.[method] ?? expect.fail(`no ${method} ${path}`);
const schemaOf = (answer: unknown) => {
  const content = resolve(resolve(answer)['content']);
  return Reflect.get(resolve(content['application/json']), 'schema') as { $ref?: string };
};

describe('the OpenAPI document', () => {
  it('is valid OpenAPI 3.0', async () => {
    expect(
      await new Validator().validate(structuredClone(document) as unknown as Record<string, unknown>),
    ).to.deep.equal({ valid: true });
    expect(document.openapi).to.match(/^3\.0\./);
  });

  it('has no reference that leads nowhere, and nothing beside one, where it would be ignored', () => {
    expect(JSON.stringify(document)).not.to.match(/\{"\$ref":"[^"]+",|,"\$ref"/);
    for (const [, reference] of JSON.stringify(document).matchAll(/\{"\$ref":"([^"]+)"/g)) {
      expect(resolve({ $ref: reference }), reference).to.be.an('object');
    }
  });

  it('names every operation once', () => {
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).to.equal(ids.length);
    expect(ids).to.include.members([
      'createCluster',
      'listClusters',
      'readClusterStatus',
      'replaceSyncSet',
      'revealSecret',
      'recordSelectorSyncSetNotice',
    ]);
  });

  it('answers every operation with a model, or with nothing by 204, and every error with an ErrorBody', () => {
    for (const { path, method, operation } of operations) {
      const where = `${method} ${path}`;
      const codes = Object.keys(operation.responses);
      expect(
        codes.some(code => code.startsWith('2')),
        where,
      ).to.equal(true);
      // Both only where `Prefer: return=minimal` leaves the object out.
      const prefers = operation.parameters?.some(one => one.$ref === '#/components/parameters/Prefer') ?? false;
      if (codes.includes('204') && codes.some(code => /^20[^4]/.test(code))) expect(prefers, where).to.equal(true);
      expect(codes, where).to.include.members(
        path.startsWith('/v1') ? ['400', '401', '403', '413', '500', '503', '504'] : ['413', '500'],
      );
      expect(codes, `${where}: every status has a place of its own`).not.to.include('default');
      for (const code of codes) {
        const answer = operation.responses[code];
        if (code === '204' || code === '304' || method === 'head')
          expect(resolve(answer)['content'], `${where} ${code}`).to.equal(undefined);
        else if (code.startsWith('2') && path.startsWith('/v1'))
          expect(schemaOf(answer), `${where} ${code}`).to.be.an('object');
        else if (code.startsWith('2')) expect(resolve(answer)['content'], `${where} ${code}`).to.be.an('object');
        else expect(schemaOf(answer).$ref, `${where} ${code}`).to.equal('#/components/schemas/ErrorBody');
      }
    }
  });

  it('says what the verbs of a type take and answer', () => {
    const one = '/v1/clusters/{namespace}/{name}';
    const body = (path: string, method: string) =>
      Object.fromEntries(
        Object.entries(get(path, method).requestBody?.content ?? {}).map(([type, { schema }]) => [type, { schema }]),
      );
    expect(schemaOf(get('/v1/clusters', 'post').responses['201']).$ref).to.equal('#/components/schemas/Cluster');
    expect(get('/v1/clusters', 'post').responses['201']?.headers).to.have.all.keys(
      'ETag',
      'Idempotency-Replayed',
      'Location',
      'Preference-Applied',
      'Warning',
      'X-Request-Id',
    );
    expect(get(one, 'get').responses['200']?.headers).to.have.all.keys('ETag', 'X-Request-Id');
    expect(get(one, 'get').responses).to.include.keys('304', '404');
    expect(schemaOf(get('/v1/clusters', 'get').responses['200'])).to.deep.equal({
      anyOf: [{ $ref: '#/components/schemas/ClusterList' }, { $ref: '#/components/schemas/PartialList' }],
    });
    expect(get('/v1/clusters', 'get').description).to.contain('watch=true');
    expect(body(one, 'put')).to.deep.equal({
      'application/json': { schema: { $ref: '#/components/schemas/ClusterInput' } },
    });
    expect(body(one, 'patch')).to.have.all.keys(
      'application/merge-patch+json',
      'application/json-patch+json',
      'application/json',
    );
    expect(get(`${one}/metadata`, 'get').responses).to.include.keys('200', '304', '404');
    expect(body(`${one}/metadata`, 'put')).to.deep.equal({
      'application/json': { schema: { $ref: '#/components/schemas/MetadataInput' } },
    });
    const writes = [one, `${one}/status`, `${one}/metadata`].flatMap(path => [
      { path, method: 'put' },
      { path, method: 'patch' },
    ]);
    writes.push({ path: '/v1/clusters', method: 'post' }, { path: one, method: 'delete' });
    for (const { path, method } of writes) {
      const names = (get(path, method).parameters ?? []).map(parameter => resolve(parameter)['name'] ?? parameter.name);
      expect(names, `${method} ${path}`).to.include.members(['dryRun', 'Prefer', 'Claim']);
    }
    expect(body(`${one}/status`, 'put')).to.deep.equal({
      'application/json': { schema: { $ref: '#/components/schemas/ClusterStatusInput' } },
    });
    expect(document.paths['/v1/selectorsyncsets/{name}']).to.have.all.keys('get', 'head', 'put', 'patch', 'delete');
    expect(document.paths).not.to.have.any.keys(
      '/v1/syncsets/{namespace}/{name}/reveal',
      '/v1/secrets/{namespace}/{name}/status',
    );
  });

  it('tells the types apart: their name, their namespace, what the server sets', () => {
    const { schemas } = document.components;
    expect(schemas['Cluster']?.properties?.['type']).to.deep.include({ enum: ['clusters'] });
    expect(schemas['Cluster']?.required).to.include.members(['uid', 'namespace', 'resourceVersion']);
    expect(schemas['SelectorSyncSet']?.properties).not.to.have.any.keys('namespace');
    expect(schemas['SelectorSyncSetInput']?.properties).not.to.have.any.keys('namespace', 'status');
    expect(schemas['ClusterInput']?.required).to.equal(undefined);
    expect(schemas['ClusterInput']?.properties).to.include.keys('name', 'generateName');
    for (const field of ['generation', 'createdAt', 'updatedAt', 'deletedAt', 'status']) {
      expect(schemas['ClusterInput']?.properties?.[field], field).to.deep.include({ readOnly: true });
    }
  });

  it('describes every type and each of its own fields', () => {
    for (const { kind, fields, description } of types) {
      expect(description, kind).not.to.equal('');
      for (const field of fields) {
        expect(document.components.schemas[`${kind}Input`]?.properties?.[field], `${kind}.${field}`).to.have.property(
          'description',
        );
      }
    }
  });

  it('asks for a bearer token', () => {
    expect(document.security).to.deep.equal([{ token: [] }, {}]);
    expect(document.components['securitySchemes']).to.have.nested.include({
      'token.type': 'http',
      'token.scheme': 'bearer',
    });
  });
});
