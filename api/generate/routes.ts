import type { TypeModel } from './read-types.js';

/** One method of a generated controller, and what the OpenAPI document says about it beyond what tsoa can. */
export interface Route {
  method: 'Delete' | 'Get' | 'Patch' | 'Post' | 'Put';
  /** Below `/v1/{type}`. */
  path: string;
  /** The method's name in the client, the same for all types. */
  name: string;
  /** The method's name in the controller and the operation's id in the OpenAPI document, unique over all types. */
  operation: string;
  /** The method of ResourceController that does the work. */
  call: string;
  summary: string;
  description?: string;
  /** Whether the path names an object. */
  key: boolean;
  query: string;
  /** The type of the body as the controller declares it: tsoa checks what it knows, `free` is checked by the core. */
  body?: string;
  /** The model of the body in the document, where the controller takes it unchecked. */
  documentedBody?: string;
  /** Success codes; the answer has the model `returns`. */
  success: number[];
  returns: string;
  /** Further codes that are to be expected; 400, 401, 403, 500 and 503 always are. */
  errors: number[];
}

type Draft = Omit<Route, 'errors' | 'key' | 'operation' | 'query' | 'success'> & Partial<Route>;

const free = '{ [field: string]: unknown }';

/** The routes of a type, in the order in which they are documented. */
export function routes(type: TypeModel): Route[] {
  const { kind } = type;
  // A name that tells kinds apart: createCluster, listClusters, readClusterStatus, …
  const plural = type.type.startsWith(kind.toLowerCase())
    ? kind + type.type.slice(kind.length)
    : `${kind.slice(0, -1)}ies`;
  const operation = (name: string) =>
    name === 'list' ? `list${plural}` : name.replace(/^[a-z]+/, verb => `${verb}${kind}`);
  return drafts(type).map(draft => ({
    key: draft.path !== '',
    query: draft.method === 'Get' || draft.name === 'recordNotice' ? 'NoQuery' : 'WriteQuery',
    success: [200],
    operation: operation(draft.name),
    ...draft,
    errors: [
      ...(draft.path === '' ? [] : [404]),
      ...(draft.method === 'Get' ? [] : [409]),
      ...(draft.body === undefined ? [] : [413, 415, 422]),
      ...(draft.errors ?? []),
    ],
  }));
}

function drafts({ type, kind, namespaced, status, fields }: TypeModel): Draft[] {
  const object = namespaced ? '{namespace}/{name}' : '{name}';
  const list: Draft[] = [
    {
      method: 'Post',
      path: '',
      name: 'create',
      call: 'createObject',
      summary: `Store a new object of the type ${type}`,
      body: `${kind}Input`,
      success: [201],
      returns: kind,
    },
    {
      method: 'Get',
      path: '',
      name: 'list',
      call: 'listObjects',
      summary: `List or watch ${type}`,
      description: [
        'All objects that match, ordered by namespace and name, in pages of one state.\n',
        'With `watch=true` the answer is a stream of lines that goes on until one side closes it:\n',
        '- `{"type": "ADDED" or "MODIFIED" or "DELETED", "resourceVersion", "previousResourceVersion", "object"}` for each change, in the order of versions\n',
        '- `{"type": "BOOKMARK", "resourceVersion"}` at least every 10 s\n',
        '- `{"type": "ERROR", "error"}` as the last line if something is wrong\n',
        'Without `resourceVersion` it begins with the objects of now as ADDED and a BOOKMARK with `initialEventsEnd`.',
        'With `Accept: text/event-stream` the lines come as server-sent events, and `Last-Event-ID` resumes.',
      ].join('\n'),
      query: 'ListQuery',
      returns: `${kind}List`,
      errors: [410, 422],
    },
    {
      method: 'Get',
      path: object,
      name: 'read',
      call: 'readObject',
      summary: `Read one of the ${type}`,
      returns: kind,
    },
    {
      method: 'Put',
      path: object,
      name: 'replace',
      call: 'replaceObject',
      summary: `Replace one of the ${type}`,
      description:
        'What the body leaves out is removed, or set to its default; status is left as it is. With `If-None-Match: *` an object that does not exist is created.',
      body: free,
      documentedBody: `${kind}Input`,
      success: [200, 201],
      returns: kind,
    },
    {
      method: 'Patch',
      path: object,
      name: 'patch',
      call: 'patchObject',
      summary: `Change some fields of one of the ${type}`,
      description:
        'A JSON merge patch (RFC 7396): fields that are left out stay, `null` removes; with a `resourceVersion` in the patch it applies to that version only. Or a JSON patch (RFC 6902) of at most 10,000 operations: a `test` that fails is a Conflict (409), a path that leads nowhere is Invalid (422), and the message names the index of the operation; secret fields cannot be tested.',
      body: free,
      returns: kind,
    },
    {
      method: 'Delete',
      path: '',
      name: 'deleteAll',
      call: 'deleteObjects',
      summary: `Delete all ${type} that match`,
      description:
        'Each as a single DELETE would: finalizers hold it. Something must be said of what to delete: a selector, `ownerUid`, or `all=true`. Objects are deleted some hundred at a time, so a request that fails or is cut may have deleted some; repeat it.',
      query: 'DeleteCollectionQuery',
      returns: 'DeletionCount',
      errors: [422],
    },
    {
      method: 'Delete',
      path: object,
      name: 'delete',
      call: 'deleteObject',
      summary: `Delete one of the ${type}`,
      description:
        'Answers with the object as it was last. While it has finalizers it stays, with `deletedAt` set, until the last of them is taken out.',
      query: 'DeleteQuery',
      returns: kind,
    },
  ];
  if (status !== undefined) {
    list.push(
      {
        method: 'Get',
        path: `${object}/status`,
        name: 'readStatus',
        call: 'readObject',
        summary: 'Read the object with its status',
        returns: kind,
      },
      {
        method: 'Put',
        path: `${object}/status`,
        name: 'replaceStatus',
        call: 'replaceStatus',
        summary: 'Replace the status',
        description:
          'The whole object may be sent; all but `status`, `uid` and `resourceVersion` is ignored. The generation stays.',
        body: free,
        documentedBody: `${kind}StatusInput`,
        returns: kind,
      },
      {
        method: 'Patch',
        path: `${object}/status`,
        name: 'patchStatus',
        call: 'patchStatus',
        summary: 'Change some fields of the status',
        description:
          'A JSON merge patch of the whole object, for example `{"status": {"nodeCount": 3}}`, or a JSON patch of it, with paths such as `/status/nodeCount`; all but `status`, `uid` and `resourceVersion` is ignored.',
        body: free,
        returns: kind,
      },
    );
  }
  list.push(
    {
      method: 'Get',
      path: `${object}/metadata`,
      name: 'readMetadata',
      call: 'readObject',
      summary: 'Read the object with its metadata',
      returns: kind,
    },
    {
      method: 'Put',
      path: `${object}/metadata`,
      name: 'replaceMetadata',
      call: 'replaceMetadata',
      summary: 'Replace labels, annotations, finalizers and owners',
      description:
        'The whole object may be sent; all but `labels`, `annotations`, `finalizers`, `owners`, `uid` and `resourceVersion` is ignored, and of those what is left out is removed. The generation stays.',
      body: free,
      documentedBody: 'MetadataInput',
      returns: kind,
    },
    {
      method: 'Patch',
      path: `${object}/metadata`,
      name: 'patchMetadata',
      call: 'patchMetadata',
      summary: 'Change some labels, annotations, finalizers or owners',
      description:
        'A JSON merge patch or a JSON patch of the whole object; all but `labels`, `annotations`, `finalizers`, `owners`, `uid` and `resourceVersion` is ignored.',
      body: free,
      returns: kind,
    },
  );
  if (fields.some(field => field.secret)) {
    list.push({
      method: 'Get',
      path: `${object}/reveal`,
      name: 'reveal',
      call: 'revealObject',
      summary: 'Read the secret fields in clear',
      description:
        'For controllers that are registered to reveal this type and hold a claim, which the header `Claim` names. Never cached, always logged.',
      returns: 'Revealed',
      errors: [409],
    });
  }
  list.push(
    {
      method: 'Get',
      path: `${object}/notices`,
      name: 'listNotices',
      call: 'listNotices',
      summary: 'List what controllers recorded about the object',
      returns: 'NoticeList',
    },
    {
      method: 'Post',
      path: `${object}/notices`,
      name: 'recordNotice',
      call: 'recordNotice',
      summary: 'Record something that people should know about the object',
      description: 'The same notice again is counted, not stored again.',
      body: 'NoticeInput',
      success: [201],
      returns: 'Notice',
    },
  );
  return list;
}
