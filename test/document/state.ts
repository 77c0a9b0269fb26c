import type { Operation } from './document.js';
import type { Received } from './exchange.js';
import type { Draft, Known } from './requests.js';

/** What the server has said so far: versions and uids of objects, tokens of pages. */
export class State {
  readonly #objects = new Map<string, { uid: string; resourceVersion: string }>();
  readonly #pages = new Map<string, string>();
  #last: { uid: string; resourceVersion: string } | undefined;
  /** The token of a claim that is held. */
  claim: string | undefined;

  /** Takes what an answer says. */
  learn({ path }: Pick<Operation, 'path'>, { text, status }: Received): void {
    if (status >= 300 || !text.startsWith('{')) return;
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      return;
    }
    const { continue: token } = fields(json);
    if (typeof token === 'string') this.#pages.set(path, token);
    this.#see(json);
  }

  /** What placeholders of a request stand for: what is known of the object that it is about. */
  known({ path }: Operation, draft: Draft): Known {
    const type = path.split('/')[2] ?? '';
    const { namespace, name } = draft.path;
    const object = name === undefined ? undefined : this.#objects.get(key(type, namespace, name));
    const { uid, resourceVersion } = object ?? this.#last ?? { uid: 'u', resourceVersion: '1' };
    const words: Record<string, string | undefined> = {
      uid,
      resourceVersion,
      etag: `"${resourceVersion}"`,
      continue: this.#pages.get(path),
      claim: this.claim,
    };
    return word => words[word];
  }

  #see(value: unknown): void {
    if (Array.isArray(value)) for (const one of value) this.#see(one);
    else if (typeof value === 'object' && value !== null) {
      const { type, namespace, name, uid, resourceVersion, items, results, object } = fields(value);
      if (typeof name === 'string' && typeof uid === 'string' && typeof resourceVersion === 'string') {
        this.#last = { uid, resourceVersion };
        this.#objects.set(key(String(type), namespace as string | undefined, name), this.#last);
      } else {
        for (const part of [items, results, object]) this.#see(part);
      }
    }
  }
}

function key(type: string, namespace: string | undefined, name: string): string {
  return `${type}/${namespace ?? ''}/${name}`;
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}
