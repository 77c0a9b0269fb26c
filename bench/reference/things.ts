import { Body, Controller, Get, Path, Post, Route, SuccessResponse } from '@tsoa/runtime';
import { randomUUID } from 'node:crypto';

/** The fields of a cluster that the bench sends. */
export interface ThingInput {
  /** @pattern ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ must be a DNS label */
  name: string;
  namespace?: string;
  labels?: { [key: string]: string };
  annotations?: { [key: string]: string };
  kubeconfig?: string;
}

/** What is answered: the input and what a server adds. */
export interface Thing extends ThingInput {
  uid: string;
  createdAt: string;
}

let last: Thing | undefined;

/** The API that one would write first: tsoa's own routes and checks, no database. Reading gives the object created last. */
@Route('v1/clusters')
export class ThingsController extends Controller {
  @Post()
  @SuccessResponse(201, 'Created')
  public create(@Body() body: ThingInput): Promise<Thing> {
    last = { ...body, uid: randomUUID(), createdAt: new Date().toISOString() };
    this.setStatus(201);
    return Promise.resolve(last);
  }

  @Get('{namespace}/{name}')
  public read(@Path() namespace: string, @Path() name: string): Promise<Thing> {
    if (!last) throw new Error('nothing was created yet');
    return Promise.resolve({ ...last, namespace, name });
  }
}
