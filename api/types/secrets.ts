import type { Resource } from '../resource.js';

/**
 * Confidential values that sets copy to clusters (`secretMappings`), where they become Secrets. The values are encrypted at rest
 * and shown as `••••••`; a value sent as `••••••` stays as it is.
 * @scope namespaced
 */
export interface Secret extends Resource {
  /**
   * Key to text. Keys are at most 253 letters, digits, `-`, `_` and `.`. At most 1,000.
   * @secret
   * @example {"password": "correct horse"}
   */
  data?: { [key: string]: string };
  /**
   * Key to bytes in base64, for values that are not text. A key that is in `data` as well is taken from here. At most 1,000.
   * @secret
   */
  binaryData?: { [key: string]: string };
  /**
   * The `type` of the Secret in the cluster, for example `kubernetes.io/tls`.
   * @default "Opaque"
   * @index
   * @minLength 1 must not be empty
   */
  secretType?: string;
}
