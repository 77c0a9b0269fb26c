-- Up Migration

-- Marks queued keys of these controllers as sent to their queues, of each the most urgent and as many as there is room for, and
-- returns them, the most urgent of each first. A function, so that a statement that makes keys can send them too: it sees what the
-- functions before it have done. None of the arguments may be null; then nothing is sent.
create function syncsets.take_unsent(p_controllers text[], p_rooms integer[])
returns table (controller text, type text, namespace text, name text, uid uuid, version bigint, sent_at timestamptz)
language plpgsql strict set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
begin
  return query
  with unsent as materialized (
    select u.row from unnest(p_controllers, p_rooms) as r(controller, room) cross join lateral (
      select w.ctid as row from syncsets.work w
      where w.controller = r.controller and w.state = 'queued' and w.sent_at is null
      order by w.priority desc, w.rank limit r.room for update skip locked
    ) u
  ), sent as (
    update syncsets.work w set sent_at = clock_timestamp() where w.ctid = any (array(select u.row from unsent u))
    returning w.controller, w.type, w.namespace, w.name, w.uid, w.version, w.sent_at, w.priority, w.rank
  )
  select s.controller, s.type, s.namespace, s.name, s.uid, s.version, s.sent_at from sent s
  order by s.controller, s.priority desc, s.rank;
end
$$;

-- Down Migration

drop function syncsets.take_unsent;
