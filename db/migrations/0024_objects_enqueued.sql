-- Up Migration

-- Behind which rank the next key of each namespace is queued: that of its last key, or that which is being served when it has none
-- there. So each namespace's keys have consecutive ranks, and one with 100,000 of them delays another by a single key (start-time
-- fair queueing). Without sorting and by a range of one namespace, so that only `work_fairness` can answer: a plan that was made
-- while the queue was empty walked it by rank until it met the namespace, 40,000 keys in 9 ms, a million for each namespace that
-- had none. Of the snapshot of who asks.
create function syncsets.lane_ends(p_controller text, p_priority integer, p_namespaces text[])
returns table (namespace text, rank bigint)
language plpgsql stable set enable_sort = off set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_front bigint := coalesce((select w.rank from syncsets.work w where w.controller = p_controller and w.priority = p_priority
    and w.state = 'queued' order by w.rank limit 1), 0);
begin
  return query select n.namespace, greatest(v_front, (
      select w.rank from syncsets.work w where w.controller = p_controller and w.priority = p_priority
        and w.namespace >= n.namespace and w.namespace <= n.namespace and w.state = 'queued'
      order by w.namespace desc, w.rank desc limit 1))
    from unnest(p_namespaces) as n(namespace);
end
$$;

-- Enqueues the keys of objects of one type for one controller, in the order in which rows are locked: by namespace, name. Returns
-- whether any is queued now. As `enqueue_in_order` does, and at two thirds of its cost as long as no key of them is at work, waits or
-- is queued, as when a controller is new or has nothing to do: a row that may be there is looked for before its insert and costs a
-- second entry in the write-ahead log.
create function syncsets.enqueue_objects(p_controller text, p_type text, p_namespaces text[], p_names text[], p_uids uuid[],
  p_versions bigint[], p_priority integer, p_reason text, p_not_before timestamptz default null) returns boolean
language plpgsql set enable_seqscan = off set enable_nestloop = off set plan_cache_mode = force_generic_plan as $$
begin
  with lane as materialized (
    select n.namespace, min(n.place) as place from unnest(p_namespaces) with ordinality as n(namespace, place) group by n.namespace
  )
  insert into syncsets.work (controller, type, namespace, name, uid, version, state, reason, priority, rank, not_before)
  select p_controller, p_type, k.namespace, k.name, k.uid, k.version,
    case when p_not_before is null then 'queued' else 'waiting' end, p_reason, p_priority, e.rank + 1 + k.place - l.place, p_not_before
  from unnest(p_namespaces, p_names, p_uids, p_versions) with ordinality as k(namespace, name, uid, version, place)
  join lane l on l.namespace = k.namespace
  join syncsets.lane_ends(p_controller, p_priority, array(select namespace from lane)) e on e.namespace = k.namespace
  order by k.place;
  return found and p_not_before is null;
exception when unique_violation then
  -- Some are there: the attempt is undone, and what there is and what is new are merged one by one.
  return cardinality(syncsets.enqueue_in_order(array(
    select row(p_controller, p_type, k.namespace, k.name, k.uid, k.version, p_priority, p_reason)::syncsets.key
    from unnest(p_namespaces, p_names, p_uids, p_versions) with ordinality as k(namespace, name, uid, version, place)
    order by k.place), p_not_before)) > 0;
end
$$;

-- As before; these look for ranks by `lane_ends`. What a caller switches off does not hold for `enqueue_in_order`: its plan, which a
-- session keeps, was one that compares each key with each namespace when somebody was the first who had hash joins off.
create or replace function syncsets.enqueue_in_order(p_keys syncsets.key[], p_not_before timestamptz default null) returns text[]
language plpgsql set enable_seqscan = off set enable_nestloop = on set enable_hashjoin = on set enable_mergejoin = on
  set plan_cache_mode = force_generic_plan as $$
declare
  v_controllers text[];
begin
  with key as materialized (
    select * from unnest(p_keys) with ordinality as k(controller, type, namespace, name, uid, version, priority, reason, place)
  ), lane as materialized (
    select l.controller, l.priority, e.namespace, e.rank, row_number() over () as number
    from (select controller, priority, array_agg(distinct namespace) as namespaces from key group by controller, priority) l
    cross join lateral syncsets.lane_ends(l.controller, l.priority, l.namespaces) e
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
      -- in its namespace's turn, see syncsets.lane_ends
      rank = case when j.again
        then (select e.rank from syncsets.lane_ends(p_controller, j.next_priority, array[w.namespace]) e) + j.place else j.rank end,
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

create or replace function syncsets.promote(p_limit integer) returns text[]
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_woken text[];
begin
  with due as materialized (
    -- as a sub-query: no index answers a comparison with a volatile clock, and all waiting keys would be looked at each second
    select w.ctid as row, w.controller, w.namespace, w.name, w.priority, w.not_before from syncsets.work w
    where w.state = 'waiting' and w.not_before <= (select clock_timestamp())
    order by w.not_before limit p_limit for update skip locked
  ), placed as (
    select d.*, row_number() over (partition by d.controller, d.priority, d.namespace order by d.not_before, d.name) as place from due d
  ), ranked as materialized (
    select p.row, p.controller, p.place + max(case when p.place = 1 then (
        select e.rank from syncsets.lane_ends(p.controller, p.priority, array[p.namespace]) e) end)
      over (partition by p.controller, p.priority, p.namespace) as rank
    from placed p
  ), promoted as (
    update syncsets.work w set state = 'queued', not_before = null, queued_at = clock_timestamp(), sent_at = null, rank = r.rank
    from ranked r where w.ctid = r.row
    returning w.controller
  )
  select coalesce(array_agg(distinct p.controller), '{}') into v_woken from promoted p;
  return v_woken;
end
$$;

-- An entry for each key that is queued, a tenth of what queueing it costs, for how long the oldest has waited, which the first ones
-- of each priority tell as well (db/controllers.ts), and for the hourly look at abandoned controllers. Replicas of the release before
-- sort all queued keys of a controller for that figure until they are gone.
drop index syncsets.work_age;

-- Down Migration

create index work_age on syncsets.work (controller, queued_at) where state = 'queued';

create or replace function syncsets.promote(p_limit integer) returns text[]
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_woken text[];
begin
  with due as materialized (
    -- as a sub-query: no index answers a comparison with a volatile clock, and all waiting keys would be looked at each second
    select w.ctid as row, w.controller, w.namespace, w.name, w.priority, w.not_before from syncsets.work w
    where w.state = 'waiting' and w.not_before <= (select clock_timestamp())
    order by w.not_before limit p_limit for update skip locked
  ), placed as (
    select d.*, row_number() over (partition by d.controller, d.priority, d.namespace order by d.not_before, d.name) as place from due d
  ), ranked as materialized (
    select p.row, p.controller, p.place + max(case when p.place = 1 then greatest(
        coalesce((select q.rank from syncsets.work q where q.controller = p.controller and q.state = 'queued'
          and q.priority = p.priority order by q.rank limit 1), 0),
        coalesce((select q.rank from syncsets.work q where q.controller = p.controller and q.state = 'queued'
          and q.priority = p.priority and q.namespace = p.namespace order by q.rank desc limit 1), 0)) end)
      over (partition by p.controller, p.priority, p.namespace) as rank
    from placed p
  ), promoted as (
    update syncsets.work w set state = 'queued', not_before = null, queued_at = clock_timestamp(), sent_at = null, rank = r.rank
    from ranked r where w.ctid = r.row
    returning w.controller
  )
  select coalesce(array_agg(distinct p.controller), '{}') into v_woken from promoted p;
  return v_woken;
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

create or replace function syncsets.enqueue_in_order(p_keys syncsets.key[], p_not_before timestamptz default null) returns text[]
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

drop function syncsets.enqueue_objects, syncsets.lane_ends;
