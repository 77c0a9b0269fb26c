import type { Database } from './database.js';
import type { Key } from './read.js';

/** What a controller wants people to know of an object; repeats of the same words are counted. */
export interface NoticeRow {
  actor: string;
  reason: string;
  message: string;
  count: number;
  first: string;
  last: string;
}

const keptFor = '24 hours';
/**
 * Notices that an object has at most, so that a message with a number in it does not fill the table in the 24 hours, and one
 * answer holds them all: 3 MB of the longest messages.
 */
const mostOfObject = 250;

/** Records a notice of an object, the oldest of too many makes room; returns it with its count. */
export async function recordNotice(
  database: Database,
  type: string,
  key: Key,
  notice: { actor: string; reason: string; message: string },
): Promise<NoticeRow> {
  const [row] = await database.query<NoticeRow & { fresh: boolean }>({
    text: `insert into syncsets.notices as n (type, namespace, name, actor, reason, message) values ($1, $2, $3, $4, $5, $6)
      on conflict (type, namespace, name, actor, reason, md5(message)) do update set
        count = n.count + 1, last_at = clock_timestamp()
      returning actor, reason, message, count, syncsets.rfc3339(first_at) as first, syncsets.rfc3339(last_at) as last, xmax = 0 as fresh`,
    values: [type, key.namespace, key.name, notice.actor, notice.reason, notice.message],
  });
  if (!row) throw new Error('recording a notice returned no row');
  const { fresh, ...recorded } = row;
  if (fresh) await dropSurplus(database, type, key);
  return recorded;
}

/** Makes room among the notices of an object: the oldest go. */
async function dropSurplus(database: Database, type: string, key: Key): Promise<void> {
  await database.query({
    text: `delete from syncsets.notices n using (
        select s.actor, s.reason, s.message from syncsets.notices s where s.type = $1 and s.namespace = $2 and s.name = $3
        order by s.last_at desc offset $4
      ) old
      where n.type = $1 and n.namespace = $2 and n.name = $3
        and n.actor = old.actor and n.reason = old.reason and md5(n.message) = md5(old.message)`,
    values: [type, key.namespace, key.name, mostOfObject],
  });
}

/** All notices of an object, newest first. */
export async function listNotices(database: Database, type: string, key: Key): Promise<NoticeRow[]> {
  return database.query<NoticeRow>({
    text: `select actor, reason, message, count, syncsets.rfc3339(first_at) as first, syncsets.rfc3339(last_at) as last
      from syncsets.notices where type = $1 and namespace = $2 and name = $3 order by last_at desc`,
    values: [type, key.namespace, key.name],
  });
}

/** Forgets notices not repeated for 24 hours. */
export async function expireNotices(database: Database): Promise<void> {
  await database.query({
    text: 'delete from syncsets.notices where last_at < (select clock_timestamp() - $1::interval)',
    values: [keptFor],
  });
}
