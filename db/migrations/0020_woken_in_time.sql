-- Up Migration

-- As before; what it returns counts the maps that are free again as well as the keys, so that somebody is woken for a map alone.
create or replace function syncsets.release_worker(p_controller text, p_worker text, p_reason text) returns integer
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_rows tid[];
  v_maps integer;
  v_keys integer;
begin
  -- Maps first: the end of a map locks its row and then the keys that it enqueues.
  update syncsets.maps m set nonce = null, worker = null, upto = null where m.controller = p_controller and m.worker = p_worker;
  get diagnostics v_maps = row_count;
  select array_agg(h.row) into v_rows from (
    select w.ctid as row from syncsets.work w
    -- not by `=`: the primary key, which begins with it as well, must not be walked
    where w.controller is not distinct from p_controller and w.worker = p_worker and w.state = 'claimed'
    order by w.type, w.namespace, w.name for update
  ) h;
  -- A statement of its own, with a later snapshot: a key whose change was waited for lies at a new place by now, where the one
  -- above could lock it but not update it. It would stay claimed, by nobody, for ever.
  update syncsets.work w set state = 'queued', reason = p_reason, queued_at = clock_timestamp(), nonce = null, worker = null,
    claimed_at = null, sent_at = null, not_before = null, dirty = false,
    priority = case when w.dirty then greatest(w.priority, w.dirty_priority) else w.priority end
  where w.ctid = any (v_rows);
  get diagnostics v_keys = row_count;
  return v_maps + v_keys;
end
$$;

-- As before; a key that waits and is enqueued for an earlier time is queued then at the priority that was asked for.
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

-- Down Migration

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
      reason = case when w.state = 'waiting' and p_not_before is null then excluded.reason else w.reason end,
      -- a queued key keeps its place unless it becomes more urgent
      priority = case when w.state = 'claimed' or p_not_before is not null then w.priority
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
create or replace function syncsets.release_worker(p_controller text, p_worker text, p_reason text) returns integer
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_rows tid[];
  v_count integer;
begin
  -- Maps first: the end of a map locks its row and then the keys that it enqueues.
  update syncsets.maps m set nonce = null, worker = null, upto = null where m.controller = p_controller and m.worker = p_worker;
  select array_agg(h.row) into v_rows from (
    select w.ctid as row from syncsets.work w
    -- not by `=`: the primary key, which begins with it as well, must not be walked
    where w.controller is not distinct from p_controller and w.worker = p_worker and w.state = 'claimed'
    order by w.type, w.namespace, w.name for update
  ) h;
  -- A statement of its own, with a later snapshot: a key whose change was waited for lies at a new place by now, where the one
  -- above could lock it but not update it. It would stay claimed, by nobody, for ever.
  update syncsets.work w set state = 'queued', reason = p_reason, queued_at = clock_timestamp(), nonce = null, worker = null,
    claimed_at = null, sent_at = null, not_before = null, dirty = false,
    priority = case when w.dirty then greatest(w.priority, w.dirty_priority) else w.priority end
  where w.ctid = any (v_rows);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
