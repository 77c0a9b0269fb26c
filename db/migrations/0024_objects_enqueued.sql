-- Up Migration

-- Enqueues the keys of objects of one type for one controller, in the order in which rows are locked: by namespace, name. Returns
-- whether any is queued now. As `enqueue_in_order` did, and cheaper by a third as long as no key of them is at work, waits or is
-- queued, as when a controller is new or has nothing to do: a row that may be there costs a look before its insert and a mark in
-- the log after it. Where another transaction makes one of them between the look and the insert, this one ends with a violation of
-- `work_pkey`, and its caller begins again.
create function syncsets.enqueue_objects(p_controller text, p_type text, p_namespaces text[], p_names text[], p_uids uuid[],
  p_versions bigint[], p_priority integer, p_reason text, p_not_before timestamptz default null) returns boolean
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_front bigint;
begin
  if exists (select from unnest(p_namespaces, p_names) as k(namespace, name) where exists (
      select from syncsets.work w where w.controller = p_controller and w.type = p_type
        and w.namespace = k.namespace and w.name = k.name offset 0)) then
    return cardinality(syncsets.enqueue_in_order(array(
      select row(p_controller, p_type, k.namespace, k.name, k.uid, k.version, p_priority, p_reason)::syncsets.key
      from unnest(p_namespaces, p_names, p_uids, p_versions) with ordinality as k(namespace, name, uid, version, place)
      order by k.place), p_not_before)) > 0;
  end if;

  v_front := coalesce((select w.rank from syncsets.work w where w.controller = p_controller and w.priority = p_priority
    and w.state = 'queued' order by w.rank limit 1), 0);
  insert into syncsets.work (controller, type, namespace, name, uid, version, state, reason, priority, rank, not_before)
  select p_controller, p_type, k.namespace, k.name, k.uid, k.version,
    case when p_not_before is null then 'queued' else 'waiting' end, p_reason, p_priority,
    -- in its namespace's turn, see syncsets.enqueue
    l.rank + row_number() over (partition by k.namespace order by k.version, k.place), p_not_before
  from unnest(p_namespaces, p_names, p_uids, p_versions) with ordinality as k(namespace, name, uid, version, place)
  join (
    select n.namespace, greatest(v_front, coalesce((select w.rank from syncsets.work w where w.controller = p_controller
      and w.priority = p_priority and w.namespace = n.namespace and w.state = 'queued' order by w.rank desc limit 1), 0)) as rank
    from (select distinct d.namespace from unnest(p_namespaces) as d(namespace) offset 0) n
    offset 0
  ) l on l.namespace = k.namespace
  order by k.place;
  return found and p_not_before is null;
end
$$;

-- An entry for each key that is queued, a tenth of what queueing it costs, for one figure: how long the oldest has waited. The
-- first ones of each priority tell it as well, see db/controllers.ts.
drop index syncsets.work_age;

-- Down Migration

create index work_age on syncsets.work (controller, queued_at) where state = 'queued';
drop function syncsets.enqueue_objects;
