import type { Queries } from './database.js';
import type { AnswerReference, StoredAnswer } from './write.js';

/** How long answers are replayed. syncsets.write knows it as well. */
const kept = '24 hours';

/** The answers that were given under an Idempotency-Key, by line; those of lines from `first` to `last`. */
export async function findAnswers(
  queries: Queries,
  key: string,
  first: number,
  last: number,
): Promise<Map<number, StoredAnswer>> {
  const rows = await queries.query<StoredAnswer & { line: number }>({
    name: 'find-answers',
    text: `select line, request, status, body::text as body from syncsets.answers
      where key = $1 and line between $2 and $3 and at >= clock_timestamp() - $4::interval`,
    values: [key, first, last, kept],
  });
  return new Map(rows.map(({ line, ...answer }) => [line, answer]));
}

/**
 * The first answer that was given under an Idempotency-Key: that of the request as a whole (line -1), or, when a process died
 * within a batch, that of an operation.
 */
export async function firstAnswer(
  queries: Queries,
  key: string,
): Promise<(StoredAnswer & { line: number }) | undefined> {
  const [row] = await queries.query<StoredAnswer & { line: number }>({
    name: 'first-answer',
    text: `select line, request, status, body::text as body from syncsets.answers
      where key = $1 and at >= clock_timestamp() - $2::interval order by line limit 1`,
    values: [key, kept],
  });
  return row;
}

/**
 * Keeps answers to what stored nothing: refusals, and writes that change nothing. One that is there already stays. `body` is
 * JSON text without secrets.
 */
export async function keepAnswers(
  queries: Queries,
  answers: (AnswerReference & { status: number; body: string })[],
): Promise<void> {
  if (answers.length === 0) return;
  await queries.query({
    name: 'keep-answers',
    text: `insert into syncsets.answers as a (key, line, request, status, body)
      select * from unnest($1::text[], $2::integer[], $3::text[], $4::smallint[], $5::jsonb[]) as x(key, line, request, status, body)
      order by 1, 2
      on conflict (key, line) do update set request = excluded.request, status = excluded.status, body = excluded.body,
        at = clock_timestamp() where a.at < clock_timestamp() - $6::interval`,
    values: [
      answers.map(one => one.key),
      answers.map(one => one.line),
      answers.map(one => one.request),
      answers.map(one => one.status),
      answers.map(one => one.body),
      kept,
    ],
  });
}

/** Removes answers that are no longer replayed, at most `limit` of them; returns how many. */
export async function expireAnswers(queries: Queries, limit: number): Promise<number> {
  const [row] = await queries.query<{ count: number }>({
    name: 'expire-answers',
    text: `with expired as (
        delete from syncsets.answers where ctid = any (array(
          select ctid from syncsets.answers where at < (select clock_timestamp() - $2::interval) order by at limit $1))
        returning 1
      ) select count(*) as count from expired`,
    values: [limit, kept],
  });
  return row?.count ?? 0;
}
