import type { ErrorDetail } from '../errors.js';
import type { Resource } from '../resource.js';
import type { Rule } from '../type-definition.js';

/**
 * Confidential values that sets copy to clusters (`secretMappings`), where they become Secrets. The values are encrypted at rest
 * and shown as `••••••`; a value sent as `••••••` stays as it is.
 * @scope namespaced
 */
export interface Secret extends Resource {
  /**
   * Key to text. Keys are at most 253 letters, digits, `-`, `_` and `.`.
   * @secret
   */
  data?: { [key: string]: string };
  /**
   * Key to bytes in base64, for values that are not text. A key that is in `data` as well is taken from here.
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

export const rules: Rule[] = [
  {
    fields: ['data', 'binaryData'],
    check: object => {
      const { data = {}, binaryData = {} } = object as Pick<Secret, 'data' | 'binaryData'>;
      const bytes = Object.entries(binaryData).filter(([, value]) => value !== mask && !isBase64(value));
      return [
        ...checkKeys('data', data),
        ...checkKeys('binaryData', binaryData),
        ...bytes.map(([key]) => ({ path: `binaryData.${key}`, message: 'must be base64, with padding' })),
      ];
    },
  },
];

/** What stands in for a value that is to stay as it is. */
const mask = '••••••';

function checkKeys(field: string, map: object): ErrorDetail[] {
  const message = 'must have a key of 1 to 253 letters, digits, "-", "_" and "."';
  const wrong = Object.keys(map).filter(key => !/^[-._a-zA-Z0-9]{1,253}$/.test(key));
  return wrong.map(key => ({ path: `${field}.${key}`, message }));
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}
