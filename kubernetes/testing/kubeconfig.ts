/** The text of a kubeconfig with one context; what is given is added to its cluster or user. */
export function kubeconfigText(server: string, more: { cluster?: object; user?: object } = {}): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'peer', cluster: { server, ...more.cluster } }],
    users: [{ name: 'admin', user: { ...more.user } }],
    contexts: [{ name: 'peer', context: { cluster: 'peer', user: 'admin' } }],
    'current-context': 'peer',
  });
}

/** Base64, as the `…-data` fields of a kubeconfig have it. */
export function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}
