import type { Database } from './database.js';
import { insist } from './races.js';

/** How far versions go on above what a backup holds: more writes than that of one type since the backup need another time. */
const step = 1_000_000;

/** What became of the versions of a type. */
export interface RaisedVersion {
  type: string;
  /** The newest version that the backup holds. */
  former: number;
  /** The next one comes after this. */
  version: number;
}

/**
 * After a restored backup: lets the versions of every type go on a million above what is stored, so that none that a client has
 * seen of the lost state is given again, and voids all claims. Watchers, pages of lists and secondary watches begin anew, every
 * object is enqueued for its controllers. The platform may run meanwhile. Throws the driver's error when the database is away.
 */
export async function raiseVersions(database: Database): Promise<RaisedVersion[]> {
  return insist(database, [], () =>
    database.query<RaisedVersion>({
      text: 'select type, former, version from syncsets.raise_versions($1) order by type',
      values: [step],
    }),
  );
}
