import { reasonOf } from '../../reason.js';

/** Characters of an error's message that are reported. */
const longestMessage = 1000;

/** What an error says, cut; never its stack or cause, which may hold what nobody should see. */
export function messageOf(error: unknown): string {
  const text = reasonOf(error);
  const cut = text.length > longestMessage ? `${text.slice(0, longestMessage - 1)}…` : text;
  // What the server could not store would be refused with the whole result, for ever.
  return cut.replaceAll('\u0000', '').toWellFormed();
}
