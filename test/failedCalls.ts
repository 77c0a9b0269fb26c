import { subscribe, unsubscribe } from 'node:diagnostics_channel';

/** Resolves when so many HTTP calls of this process have got no answer, as where nobody listens. Ask before they are made. */
export function failedCalls(count: number): Promise<void> {
  // Published by node:http since 20.18.
  const channel = 'http.client.request.error';
  return new Promise(resolve => {
    let failed = 0;
    const hear = () => {
      if (++failed < count) return;
      unsubscribe(channel, hear);
      resolve();
    };
    subscribe(channel, hear);
  });
}
