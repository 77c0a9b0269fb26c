import { StartError } from './start-error.js';

const descriptions = {
  run: 'everything in one process: the API, the controllers, and the embedded database when none is given',
  api: 'the API alone, as often as wanted',
  controllers: 'the controllers alone, as often as wanted',
  migrate: 'brings the database to this release and ends',
  'rotate-key': 'encrypts all secrets anew with the first key of ENCRYPTION_KEY, while the platform runs, and ends',
  'raise-versions': 'after a restored backup: lets versions go on above what clients have seen, and ends',
} as const;

/** What the program can be started as. */
export type Role = keyof typeof descriptions;

/**
 * The role of this name.
 *
 * @throws StartError listing the roles that there are
 */
export function readRole(name: string): Role {
  if (isRole(name)) return name;
  const list = Object.entries(descriptions).map(([one, text]) => `  ${one.padEnd(14)} ${text}`);
  throw new StartError(`"${name}" is not a role. There are:\n${list.join('\n')}`);
}

/** Whether a role serves the API, and therefore needs what protects it. */
export function servesApi(role: Role): boolean {
  return role === 'run' || role === 'api';
}

/** Whether a role ends by itself when its work is done; the others go on until a signal. */
export function ends(role: Role): role is 'migrate' | 'rotate-key' | 'raise-versions' {
  return role === 'migrate' || role === 'rotate-key' || role === 'raise-versions';
}

function isRole(name: string): name is Role {
  return Object.hasOwn(descriptions, name);
}
