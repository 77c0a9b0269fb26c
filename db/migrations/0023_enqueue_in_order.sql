-- Up Migration

-- As before, cheaper by a fifth: keys that come distinct and in order are not sorted for it again, and what is left to sort is sorted
-- by numbers instead of texts. `p_in_order`: no key is named twice, and they stand in the order in which rows are locked.
drop function syncsets.enqueue;
create function syncsets.enqueue(p_keys syncsets.key[], p_not_before timestamptz default null, p_in_order boolean default false)
returns text[]
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_keys syncsets.key[] := p_keys;
  v_controllers text[];
begin
  if not p_in_order and cardinality(p_keys) > 1 then
    v_keys := array(
      select distinct on (controller, type, namespace, name)
        row(controller, type, namespace, name, uid, version,
          max(priority) over (partition by controller, type, namespace, name), reason)::syncsets.key
      from unnest(p_keys)
      order by controller, type, namespace, name, version desc nulls last
    );
  end if;
  with key as materialized (
    select * from unnest(v_keys) with ordinality as k(controller, type, namespace, name, uid, version, priority, reason, place)
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


-- Down Migration

drop function syncsets.enqueue;
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
