-- Up Migration

-- Applies a batch of writes to one type: counter, objects and event rows in one transaction. Items are independent: one that
-- fails is answered with its outcome and leaves the others alone. A key may occur once in a batch.
-- An item: {i, op: create | update | delete, namespace, name, uid, expect, object, labels, sealed, keepSealed, deleting,
--   before, changed, actor, claim: {controller, type, namespace, name, nonce}, traceparent}.
-- `expect` is the version that the caller computed the item from; for a delete `object` is left out.
-- Outcomes: ok, exists, missing, conflict, fenced.
create function syncsets.write(p_type text, p_items jsonb)
returns table (i integer, outcome text, version bigint, stamp text)
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  v_version bigint;
  v_at timestamptz;
  v_stamp text;
  v_fenced integer[] := '{}';
  v_written integer;
begin
  select t.version into v_version from syncsets.types t where t.type = p_type for update;
  if not found then raise exception 'type % has no counter row', p_type using errcode = 'no_data_found'; end if;
  v_at := clock_timestamp();
  v_stamp := syncsets.rfc3339(v_at);

  if p_items @? '$[*].claim' then
    -- the claimed rows are locked so that a claim cannot be lost between this check and the commit
    with claim as materialized (
      select x.i, x.claim->>'controller' as controller, x.claim->>'type' as type, x.claim->>'namespace' as namespace,
        x.claim->>'name' as name, (x.claim->>'nonce')::uuid as nonce
      from jsonb_to_recordset(p_items) as x(i integer, claim jsonb) where x.claim is not null
    ), locked as materialized (
      select w.controller, w.type, w.namespace, w.name, w.nonce, w.worker from syncsets.work w
      where (w.controller, w.type, w.namespace, w.name) in (select c.controller, c.type, c.namespace, c.name from claim c)
        and w.state = 'claimed'
      order by w.controller, w.type, w.namespace, w.name
      for share
    ), held as (
      select l.* from locked l join syncsets.workers k on k.controller = l.controller and k.worker = l.worker
      where k.expires_at > clock_timestamp()
    )
    select coalesce(array_agg(c.i), '{}') into v_fenced from claim c
      where not exists (select from held h where (h.controller, h.type, h.namespace, h.name, h.nonce)
        = (c.controller, c.type, c.namespace, c.name, c.nonce));
  end if;

  return query
  with item as materialized (
    select * from jsonb_to_recordset(p_items) as x(
      i integer, op text, namespace text, name text, uid uuid, expect bigint, object jsonb, labels jsonb, sealed jsonb,
      "keepSealed" boolean, deleting boolean, before jsonb, changed text[], actor text, own boolean, traceparent text)
  ), judged as materialized (
    select item.*, o.object as stored, o.labels as stored_labels, o.uid as stored_uid,
      case
        when item.i = any (v_fenced) then 'fenced'
        when item.op = 'create' then case when o.version is null then 'ok' else 'exists' end
        when o.version is null then 'missing'
        when o.version <> item.expect then 'conflict'
        else 'ok'
      end as outcome
    from item left join syncsets.objects o
      on o.type = p_type and o.namespace = item.namespace and o.name = item.name
  ), numbered as materialized (
    select j.*, v_version + row_number() over (order by j.i) as version from judged j where j.outcome = 'ok'
  ), accepted as materialized (
    select n.i, n.op, n.namespace, n.name, n.version, n.sealed, n."keepSealed", n.before, n.changed, n.actor, n.own, n.traceparent,
      coalesce(n.uid, n.stored_uid) as uid,
      coalesce(n.labels, n.stored_labels) as labels,
      coalesce(n.object, n.stored) || case
        when n.op = 'create' then jsonb_build_object('resourceVersion', n.version::text, 'createdAt', v_stamp, 'updatedAt', v_stamp)
        when n.deleting then jsonb_build_object('resourceVersion', n.version::text, 'updatedAt', v_stamp, 'deletedAt', v_stamp)
        when n.op = 'delete' then jsonb_build_object('resourceVersion', n.version::text)
        else jsonb_build_object('resourceVersion', n.version::text, 'updatedAt', v_stamp)
      end as object
    from numbered n
  ), created as (
    insert into syncsets.objects (type, namespace, name, uid, version, labels, object, sealed)
    select p_type, a.namespace, a.name, a.uid, a.version, a.labels, a.object, a.sealed from accepted a where a.op = 'create'
  ), updated as (
    update syncsets.objects o set version = a.version, labels = a.labels, object = a.object,
      sealed = case when a."keepSealed" then o.sealed else a.sealed end
    from accepted a
    where a.op = 'update' and o.type = p_type and o.namespace = a.namespace and o.name = a.name
  ), deleted as (
    delete from syncsets.objects o using accepted a
    where a.op = 'delete' and o.type = p_type and o.namespace = a.namespace and o.name = a.name
  ), logged as (
    insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed,
      actor, own, traceparent)
    select p_type, a.version, a.version - 1, v_at,
      case a.op when 'create' then 'ADDED' when 'update' then 'MODIFIED' else 'DELETED' end,
      a.namespace, a.name, a.uid, a.labels, a.object, a.before, a.changed, a.actor, a.own, a.traceparent
    from accepted a
  ), counted as (
    update syncsets.types t set version = v_version + (select count(*) from accepted) where t.type = p_type
      and exists (select from accepted)
  )
  select j.i, j.outcome, a.version, v_stamp from judged j left join accepted a on a.i = j.i;
end
$$;

-- Down Migration

drop function syncsets.write;
