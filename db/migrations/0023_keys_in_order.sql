-- Up Migration

-- Rows of work are locked in one order everywhere, that of its columns, whatever the collation of the database is.
alter type syncsets.key
  alter attribute controller type text collate "C",
  alter attribute type type text collate "C",
  alter attribute namespace type text collate "C",
  alter attribute name type text collate "C";

-- Enqueues keys of which none is named twice and which stand in the order in which rows are locked: by controller, type, namespace,
-- name. As `enqueue` did, and cheaper by a fifth: nothing is sorted for it again, and lanes are sorted by numbers instead of texts.
create function syncsets.enqueue_in_order(p_keys syncsets.key[], p_not_before timestamptz default null) returns text[]
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_controllers text[];
begin
  with key as materialized (
    select * from unnest(p_keys) with ordinality as k(controller, type, namespace, name, uid, version, priority, reason, place)
  ), lane as materialized (
    select l.controller, l.priority, l.namespace, row_number() over () as number,
      greatest(
        coalesce((select w.rank from syncsets.work w where w.controller = l.controller and w.priority = l.priority
          and w.state = 'queued' order by w.rank limit 1), 0),
        coalesce((select w.rank from syncsets.work w where w.controller = l.controller and w.priority = l.priority
          and w.namespace = l.namespace and w.state = 'queued' order by w.rank desc limit 1), 0)
      ) as rank
    from (select distinct controller, priority, namespace from key) l
  ), ranked as (
    select k.*, l.rank + row_number() over (partition by l.number order by k.version nulls first, k.place) as rank
    from key k join lane l on l.controller = k.controller and l.priority = k.priority and l.namespace = k.namespace
  ), upserted as (
    insert into syncsets.work as w (controller, type, namespace, name, uid, version, state, reason, priority, rank, not_before)
    select controller, type, namespace, name, uid, version,
      case when p_not_before is null then 'queued' else 'waiting' end, reason, priority, rank, p_not_before
    from ranked order by place
    on conflict (controller, type, namespace, name) do update set
      uid = coalesce(excluded.uid, w.uid),
      version = greatest(excluded.version, w.version),
      state = case when w.state = 'waiting' and p_not_before is null then 'queued' else w.state end,
      reason = case when w.state = 'waiting' and (p_not_before is null or p_not_before < w.not_before)
        then excluded.reason else w.reason end,
      -- a queued key keeps its place unless it becomes more urgent, a waiting one takes the priority of what it is due for
      priority = case when w.state = 'waiting' and p_not_before < w.not_before then greatest(w.priority, excluded.priority)
        when w.state = 'claimed' or p_not_before is not null then w.priority
        when w.state = 'waiting' then excluded.priority else greatest(w.priority, excluded.priority) end,
      rank = case when w.state = 'claimed' or p_not_before is not null then w.rank
        when w.state = 'waiting' or excluded.priority > w.priority then excluded.rank else w.rank end,
      -- parked for good until the object changes: it starts afresh
      attempts = case when w.state = 'waiting' and w.not_before = 'infinity' and p_not_before is null then 0 else w.attempts end,
      queued_at = case when w.state = 'waiting' and p_not_before is null then clock_timestamp() else w.queued_at end,
      sent_at = case when w.state = 'waiting' or excluded.priority > w.priority then null else w.sent_at end,
      -- of a claimed key: when it is to run again at the latest, see syncsets.done; a queued one runs before that
      not_before = case when w.state = 'queued' or (w.state = 'claimed' and p_not_before is null) then w.not_before
        when p_not_before is null then null else least(w.not_before, p_not_before) end,
      dirty = w.dirty or (w.state = 'claimed' and p_not_before is null),
      -- what a claimed key is queued with after its run: at once where it is dirty, else at its time
      dirty_priority = case
        when w.state <> 'claimed' or (w.dirty and p_not_before is not null) then w.dirty_priority
        when w.dirty or (p_not_before is not null and w.not_before is not null) then greatest(excluded.priority, w.dirty_priority)
        else excluded.priority end
    returning w.controller, w.state
  )
  select array_agg(d.controller) into v_controllers
  from (select distinct u.controller from upserted u where u.state = 'queued') d;
  return coalesce(v_controllers, '{}');
end
$$;

-- As before: keys in any order, each as often as its caller likes.
create or replace function syncsets.enqueue(p_keys syncsets.key[], p_not_before timestamptz default null) returns text[]
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  if cardinality(p_keys) < 2 then return syncsets.enqueue_in_order(p_keys, p_not_before); end if;
  return syncsets.enqueue_in_order(array(
    select distinct on (controller, type, namespace, name)
      row(controller, type, namespace, name, uid, version,
        max(priority) over (partition by controller, type, namespace, name), reason)::syncsets.key
    from unnest(p_keys)
    order by controller, type, namespace, name, version desc nulls last
  ), p_not_before);
end
$$;

-- As before, its rows in that order.
create or replace function syncsets.done(p_controller text, p_results jsonb)
returns table (i integer, state text, queued boolean)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_judged syncsets.judged[];
  v_alive text[];
begin
  perform set_config('synchronous_commit', 'off', true);
  v_judged := array(
    select row(l.i, l.result, l."requeueAfter", l.message, l.row, l.worker,
      l.dirty or l.result = 'released', l.next_priority,
      row_number() over (partition by l.namespace, l.next_priority order by l.i),
      l.dirty, l.priority, l.attempts, l.rank, l.timer, l.timer_priority)::syncsets.judged
    from (
      select r.i, r.result, r."requeueAfter", r.message, r.namespace,
        w.row, w.worker, w.dirty, w.priority, w.attempts, w.rank, w.not_before as timer, w.dirty_priority as timer_priority,
        case when w.dirty then w.dirty_priority else w.priority end as next_priority
      from (
        -- in key order, so that two of these never deadlock
        select * from jsonb_to_recordset(p_results) as r(
          i integer, type text, namespace text, name text, nonce uuid, result text, "requeueAfter" double precision, message text)
        order by r.type collate "C", r.namespace collate "C", r.name collate "C"
      ) r left join lateral (
        -- only a claimed key has a nonce; asking for its state would let a plan walk all claims of the controller
        select w.ctid as row, w.worker, w.dirty, w.dirty_priority, w.priority, w.attempts, w.rank, w.not_before
        from syncsets.work w
        where w.controller = p_controller and w.type = r.type and w.namespace = r.namespace and w.name = r.name
          and w.nonce = r.nonce offset 0 for update
      ) w on true
      offset 0
    ) l);

  -- a statement of its own, with a later snapshot: a lease may have been renewed while a key's lock was waited for
  v_alive := array(
    select x.worker from (select distinct j.worker from unnest(v_judged) j) j cross join lateral (
      select k.worker from syncsets.workers k
      where k.controller = p_controller and k.worker = j.worker and k.expires_at > clock_timestamp() offset 0
    ) x);

  delete from syncsets.work w where w.ctid = any (array(
    select j.row from unnest(v_judged) j where j.worker = any (v_alive) and not j.again and j.result = 'done'
      and j.requeue_after is null and j.timer is null));

  if exists (select from unnest(v_judged) j where j.worker = any (v_alive)
      and (j.again or j.result <> 'done' or j.requeue_after is not null or j.timer is not null)) then
    update syncsets.work w set
      state = case when j.again then 'queued' else 'waiting' end,
      reason = case when j.dirty then 'changed' when j.result = 'released' then 'released' when j.timed then 'enqueued'
        when j.result = 'done' then 'requeueAfter' else j.result end,
      -- a key that fails again and again does not hold up what people change
      priority = case when j.dirty then j.next_priority when j.result = 'released' then j.priority when j.timed then j.timer_priority
        when j.result = 'done' then -10 when j.result = 'error' then least(j.priority, 0) else j.priority end,
      attempts = case j.result when 'done' then 0 when 'released' then j.attempts else j.attempts + 1 end,
      not_before = case when not j.again then least(j.due, j.timer) end,
      last_error = case when j.result in ('error', 'terminal') then j.message when j.result = 'done' then null else w.last_error end,
      queued_at = clock_timestamp(),
      -- in its namespace's turn, see syncsets.enqueue
      rank = case when j.again then greatest(
        coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
          and q.priority = j.next_priority order by q.rank limit 1), 0),
        coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
          and q.priority = j.next_priority
          and q.namespace = w.namespace order by q.rank desc limit 1), 0)) + j.place else j.rank end,
      nonce = null, worker = null, claimed_at = null, sent_at = null, dirty = false
    from (
      select u.*, coalesce(u.timer <= u.due, u.due is null) as timed from (
        select v.*, case
            when v.result = 'done' then clock_timestamp() + make_interval(secs => v.requeue_after)
            when v.result = 'terminal' then 'infinity'
            else clock_timestamp() + make_interval(secs => least(300, power(2, least(v.attempts, 10))) * (1 - random() * 0.1))
          end as due
        from unnest(v_judged) v offset 0
      ) u offset 0
    ) j
    where w.ctid = j.row and j.worker = any (v_alive)
      and (j.again or j.result <> 'done' or j.requeue_after is not null or j.timer is not null);
  end if;

  return query select j.i, case when j.worker = any (v_alive) then 'ok' else 'fenced' end,
    coalesce(j.worker = any (v_alive) and j.again, false) from unnest(v_judged) j;
end
$$;

-- As before; where no key was left over, as a rule, nothing is updated: that was a tenth of a call for one key.
create or replace function syncsets.claim_instead(p_controller text, p_worker text, p_max integer, p_seconds integer, p_messages jsonb)
returns table (type text, namespace text, name text, uid uuid, attempts integer, reason text, nonce uuid, object text, age double precision)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_rows tid[];
begin
  return query select c.* from syncsets.claim(p_controller, p_worker, p_max, p_seconds) c;
  select array_agg(l.row) into v_rows from jsonb_to_recordset(p_messages) as x(type text, namespace text, name text)
  cross join lateral (
    select w.ctid as row, w.state, w.sent_at from syncsets.work w
    where w.controller = p_controller and w.type = x.type and w.namespace = x.namespace and w.name = x.name
    offset 0 for update skip locked
  ) l
  where l.state = 'queued' and l.sent_at is not null;
  if v_rows is not null then
    update syncsets.work w set sent_at = null where w.ctid = any (v_rows);
  end if;
end
$$;

-- Down Migration

create or replace function syncsets.claim_instead(p_controller text, p_worker text, p_max integer, p_seconds integer, p_messages jsonb)
returns table (type text, namespace text, name text, uid uuid, attempts integer, reason text, nonce uuid, object text, age double precision)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_rows tid[];
begin
  return query select c.* from syncsets.claim(p_controller, p_worker, p_max, p_seconds) c;
  select array_agg(l.row) into v_rows from jsonb_to_recordset(p_messages) as x(type text, namespace text, name text)
  cross join lateral (
    select w.ctid as row, w.state, w.sent_at from syncsets.work w
    where w.controller = p_controller and w.type = x.type and w.namespace = x.namespace and w.name = x.name
    offset 0 for update skip locked
  ) l
  where l.state = 'queued' and l.sent_at is not null;
  update syncsets.work w set sent_at = null where w.ctid = any (v_rows);
end
$$;

create or replace function syncsets.done(p_controller text, p_results jsonb)
returns table (i integer, state text, queued boolean)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_judged syncsets.judged[];
  v_alive text[];
begin
  perform set_config('synchronous_commit', 'off', true);
  v_judged := array(
    select row(l.i, l.result, l."requeueAfter", l.message, l.row, l.worker,
      l.dirty or l.result = 'released', l.next_priority,
      row_number() over (partition by l.namespace, l.next_priority order by l.i),
      l.dirty, l.priority, l.attempts, l.rank, l.timer, l.timer_priority)::syncsets.judged
    from (
      select r.i, r.result, r."requeueAfter", r.message, r.namespace,
        w.row, w.worker, w.dirty, w.priority, w.attempts, w.rank, w.not_before as timer, w.dirty_priority as timer_priority,
        case when w.dirty then w.dirty_priority else w.priority end as next_priority
      from (
        -- in key order, so that two of these never deadlock
        select * from jsonb_to_recordset(p_results) as r(
          i integer, type text, namespace text, name text, nonce uuid, result text, "requeueAfter" double precision, message text)
        order by r.type, r.namespace, r.name
      ) r left join lateral (
        -- only a claimed key has a nonce; asking for its state would let a plan walk all claims of the controller
        select w.ctid as row, w.worker, w.dirty, w.dirty_priority, w.priority, w.attempts, w.rank, w.not_before
        from syncsets.work w
        where w.controller = p_controller and w.type = r.type and w.namespace = r.namespace and w.name = r.name
          and w.nonce = r.nonce offset 0 for update
      ) w on true
      offset 0
    ) l);

  -- a statement of its own, with a later snapshot: a lease may have been renewed while a key's lock was waited for
  v_alive := array(
    select x.worker from (select distinct j.worker from unnest(v_judged) j) j cross join lateral (
      select k.worker from syncsets.workers k
      where k.controller = p_controller and k.worker = j.worker and k.expires_at > clock_timestamp() offset 0
    ) x);

  delete from syncsets.work w where w.ctid = any (array(
    select j.row from unnest(v_judged) j where j.worker = any (v_alive) and not j.again and j.result = 'done'
      and j.requeue_after is null and j.timer is null));

  if exists (select from unnest(v_judged) j where j.worker = any (v_alive)
      and (j.again or j.result <> 'done' or j.requeue_after is not null or j.timer is not null)) then
    update syncsets.work w set
      state = case when j.again then 'queued' else 'waiting' end,
      reason = case when j.dirty then 'changed' when j.result = 'released' then 'released' when j.timed then 'enqueued'
        when j.result = 'done' then 'requeueAfter' else j.result end,
      -- a key that fails again and again does not hold up what people change
      priority = case when j.dirty then j.next_priority when j.result = 'released' then j.priority when j.timed then j.timer_priority
        when j.result = 'done' then -10 when j.result = 'error' then least(j.priority, 0) else j.priority end,
      attempts = case j.result when 'done' then 0 when 'released' then j.attempts else j.attempts + 1 end,
      not_before = case when not j.again then least(j.due, j.timer) end,
      last_error = case when j.result in ('error', 'terminal') then j.message when j.result = 'done' then null else w.last_error end,
      queued_at = clock_timestamp(),
      -- in its namespace's turn, see syncsets.enqueue
      rank = case when j.again then greatest(
        coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
          and q.priority = j.next_priority order by q.rank limit 1), 0),
        coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
          and q.priority = j.next_priority
          and q.namespace = w.namespace order by q.rank desc limit 1), 0)) + j.place else j.rank end,
      nonce = null, worker = null, claimed_at = null, sent_at = null, dirty = false
    from (
      select u.*, coalesce(u.timer <= u.due, u.due is null) as timed from (
        select v.*, case
            when v.result = 'done' then clock_timestamp() + make_interval(secs => v.requeue_after)
            when v.result = 'terminal' then 'infinity'
            else clock_timestamp() + make_interval(secs => least(300, power(2, least(v.attempts, 10))) * (1 - random() * 0.1))
          end as due
        from unnest(v_judged) v offset 0
      ) u offset 0
    ) j
    where w.ctid = j.row and j.worker = any (v_alive)
      and (j.again or j.result <> 'done' or j.requeue_after is not null or j.timer is not null);
  end if;

  return query select j.i, case when j.worker = any (v_alive) then 'ok' else 'fenced' end,
    coalesce(j.worker = any (v_alive) and j.again, false) from unnest(v_judged) j;
end
$$;

create or replace function syncsets.enqueue(p_keys syncsets.key[], p_not_before timestamptz default null) returns text[]
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_controllers text[];
begin
  with key as materialized (
    select distinct on (controller, type, namespace, name)
      controller, type, namespace, name, uid, version, reason,
      max(priority) over (partition by controller, type, namespace, name) as priority
    from unnest(p_keys)
    order by controller, type, namespace, name, version desc nulls last
  ), lane as materialized (
    select l.controller, l.priority, l.namespace,
      greatest(
        coalesce((select w.rank from syncsets.work w where w.controller = l.controller and w.priority = l.priority
          and w.state = 'queued' order by w.rank limit 1), 0),
        coalesce((select w.rank from syncsets.work w where w.controller = l.controller and w.priority = l.priority
          and w.namespace = l.namespace and w.state = 'queued' order by w.rank desc limit 1), 0)
      ) as rank
    from (select distinct controller, priority, namespace from key) l
  ), ranked as (
    select k.*, l.rank + row_number() over (
        partition by k.controller, k.priority, k.namespace order by k.version nulls first, k.name) as rank
    from key k join lane l on l.controller = k.controller and l.priority = k.priority and l.namespace = k.namespace
  ), upserted as (
    insert into syncsets.work as w (controller, type, namespace, name, uid, version, state, reason, priority, rank, not_before)
    select controller, type, namespace, name, uid, version,
      case when p_not_before is null then 'queued' else 'waiting' end, reason, priority, rank, p_not_before
    from ranked order by controller, type, namespace, name
    on conflict (controller, type, namespace, name) do update set
      uid = coalesce(excluded.uid, w.uid),
      version = greatest(excluded.version, w.version),
      state = case when w.state = 'waiting' and p_not_before is null then 'queued' else w.state end,
      reason = case when w.state = 'waiting' and (p_not_before is null or p_not_before < w.not_before)
        then excluded.reason else w.reason end,
      -- a queued key keeps its place unless it becomes more urgent, a waiting one takes the priority of what it is due for
      priority = case when w.state = 'waiting' and p_not_before < w.not_before then greatest(w.priority, excluded.priority)
        when w.state = 'claimed' or p_not_before is not null then w.priority
        when w.state = 'waiting' then excluded.priority else greatest(w.priority, excluded.priority) end,
      rank = case when w.state = 'claimed' or p_not_before is not null then w.rank
        when w.state = 'waiting' or excluded.priority > w.priority then excluded.rank else w.rank end,
      -- parked for good until the object changes: it starts afresh
      attempts = case when w.state = 'waiting' and w.not_before = 'infinity' and p_not_before is null then 0 else w.attempts end,
      queued_at = case when w.state = 'waiting' and p_not_before is null then clock_timestamp() else w.queued_at end,
      sent_at = case when w.state = 'waiting' or excluded.priority > w.priority then null else w.sent_at end,
      -- of a claimed key: when it is to run again at the latest, see syncsets.done; a queued one runs before that
      not_before = case when w.state = 'queued' or (w.state = 'claimed' and p_not_before is null) then w.not_before
        when p_not_before is null then null else least(w.not_before, p_not_before) end,
      dirty = w.dirty or (w.state = 'claimed' and p_not_before is null),
      -- what a claimed key is queued with after its run: at once where it is dirty, else at its time
      dirty_priority = case
        when w.state <> 'claimed' or (w.dirty and p_not_before is not null) then w.dirty_priority
        when w.dirty or (p_not_before is not null and w.not_before is not null) then greatest(excluded.priority, w.dirty_priority)
        else excluded.priority end
    returning w.controller, w.state
  )
  select array_agg(distinct u.controller) filter (where u.state = 'queued') into v_controllers from upserted u;
  return coalesce(v_controllers, '{}');
end
$$;

drop function syncsets.enqueue_in_order;
alter type syncsets.key
  alter attribute controller type text collate "default",
  alter attribute type type text collate "default",
  alter attribute namespace type text collate "default",
  alter attribute name type text collate "default";
