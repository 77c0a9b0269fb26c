/** Objects of a type for the conformance suite, which knows nothing else of it than its definition. */
export interface Example {
  /** The own fields of a valid object. */
  object: Record<string, unknown>;
  /** An own field of it that is no secret, its value there, and another valid one; both can be selected by. */
  change: { field: string; from: unknown; to: unknown };
  /** An own field and a value that the type's model refuses. */
  wrong: { field: string; value: unknown };
  /** For types with a status: a valid one, another one, and a field of it with a value that its model refuses. */
  status?: { first: object; second: object; wrong: { field: string; value: unknown } };
}

/** By type; a type without an example fails the suite, which says so. */
export const examples: Record<string, Example> = {
  clusters: {
    object: { context: 'admin', cleanup: true },
    change: { field: 'context', from: 'admin', to: 'viewer' },
    wrong: { field: 'verifySeconds', value: 1 },
    status: {
      first: { nodeCount: 3 },
      second: { nodeCount: 4, serverVersion: 'v1.34.4' },
      wrong: { field: 'nodeCount', value: -1 },
    },
  },
  secrets: {
    object: { secretType: 'example.com/key' },
    change: { field: 'secretType', from: 'example.com/key', to: 'example.com/other' },
    wrong: { field: 'secretType', value: '' },
  },
  selectorsyncsets: {
    object: { matchAll: true, verifySeconds: 120 },
    change: { field: 'verifySeconds', from: 120, to: 240 },
    wrong: { field: 'verifySeconds', value: 1 },
  },
  syncsets: {
    object: { clusterRefs: ['a'], allowMissing: true, verifySeconds: 120 },
    change: { field: 'verifySeconds', from: 120, to: 240 },
    wrong: { field: 'verifySeconds', value: 1 },
  },
};
