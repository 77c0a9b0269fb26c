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

/** Records a notice of an object; returns it with its count. */
export async function recordNotice(
  database: Database,
  type: string,
  key: Key,
  notice: { actor: string; reason: string; message: string },
): Promise<NoticeRow> {
  const [row] = await database.query<NoticeRow>({
    text: `insert into syncsets.notices as n (type, namespace, name, actor, reason, message) values ($1, $2, $3, $4, $5, $6)
      on conflict (type, namespace, name, actor, reason, md5(message)) do update set
        count = n.count + 1, last_at = clock_timestamp()
      returning actor, reason, message, count, syncsets.rfc3339(first_at) as first, syncsets.rfc3339(last_at) as last`,
    values: [type, key.namespace, key.name, notice.actor, notice.reason, notice.message],
  });
  if (!row) throw new Error('recording a notice returned no row');
  return row;
}

/** The notices of an object, newest first. */
export async function listNotices(database: Database, type: string, key: Key): Promise<NoticeRow[]> {
  return database.query<NoticeRow>({
    text: `select actor, reason, message, count, syncsets.rfc3339(first_at) as first, syncsets.rfc3339(last_at) as last
      from syncsets.notices where type = $1 and namespace = $2 and name = $3 order by last_at desc limit 1000`,
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
