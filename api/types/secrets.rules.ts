import type { Rule } from '../admission.js';
import type { ErrorDetail } from '../errors.js';
import { mask } from '../secrets.js';
import type { Secret } from './secrets.js';

export const rules: Rule<Secret>[] = [
  {
    fields: ['data', 'binaryData'],
    admit({ data = {}, binaryData = {} }) {
      const bytes = Object.entries(binaryData).filter(([, value]) => value !== mask && !isBase64(value));
      return {
        violations: [
          ...checkKeys('data', data),
          ...checkKeys('binaryData', binaryData),
          ...bytes.map(([key]) => ({ path: `binaryData.${key}`, message: 'must be base64, with padding' })),
        ],
      };
    },
  },
];

function checkKeys(field: string, map: object): ErrorDetail[] {
  const message = 'must have a key of 1 to 253 letters, digits, "-", "_" and "."';
  const wrong = Object.keys(map).filter(key => !/^[-._a-zA-Z0-9]{1,253}$/.test(key));
  return wrong.map(key => ({ path: `${field}.${key}`, message }));
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}
