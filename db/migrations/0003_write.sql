-- Up Migration

-- Applies a batch of writes to one type: counter, objects and event rows in one transaction. Items are independent: one that
-- fails is answered with its outcome and leaves the others alone. A key may occur once in a batch.
-- An item: {i, op: create | update | delete, namespace, name, uid, expect, object, labels, sealed, keepSealed, deleting,
--   before, changed, actor, claim: {controller, type, namespace, name, nonce}, traceparent}.
-- `expect` is the version that the caller computed the item from; for a delete `object` is left out.
-- Outcomes: ok, exists, missing, conflict, fenced.
-- Its plans are made once per connection, often while the tables are empty, and must still be right at a million rows: each
-- row is looked up by its key, never found by a scan of its table (64 creates took 17 ms instead of 5 after 50,000 others).
create function syncsets.write(p_type text, p_items jsonb)
returns table (i integer, outcome text, version bigint, stamp text, uid uuid)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
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
    -- the claimed rows are locked, in key order, so that a claim cannot be lost between this check and the commit
    perform from syncsets.work w
      where (w.controller, w.type, w.namespace, w.name) in (
        select x.claim->>'controller', x.claim->>'type', x.claim->>'namespace', x.claim->>'name'
        from jsonb_to_recordset(p_items) as x(claim jsonb) where x.claim is not null)
      order by w.controller, w.type, w.namespace, w.name
      for share;
    select coalesce(array_agg(x.i), '{}') into v_fenced
    from jsonb_to_recordset(p_items) as x(i integer, claim jsonb)
    left join lateral (
      select k.worker from syncsets.work w join syncsets.workers k on k.controller = w.controller and k.worker = w.worker
      where w.controller = x.claim->>'controller' and w.type = x.claim->>'type' and w.namespace = x.claim->>'namespace'
        and w.name = x.claim->>'name' and w.nonce = (x.claim->>'nonce')::uuid and w.state = 'claimed'
        and k.expires_at > clock_timestamp()
    ) held on true
    where x.claim is not null and held.worker is null;
  end if;

  return query
  with item as materialized (
    select * from jsonb_to_recordset(p_items) as x(
      i integer, op text, namespace text, name text, uid uuid, expect bigint, object jsonb, labels jsonb, sealed jsonb,
      "keepSealed" boolean, deleting boolean, before jsonb, changed text[], actor text, own boolean, traceparent text)
  ), judged as materialized (
    select item.*, o.object as stored, o.labels as stored_labels, o.uid as stored_uid, o.sealed as stored_sealed, o.row,
      case
        when item.i = any (v_fenced) then 'fenced'
        when item.op = 'create' then case when o.version is null then 'ok' else 'exists' end
        when o.version is null then 'missing'
        when o.version <> item.expect then 'conflict'
        else 'ok'
      end as outcome
    from item left join lateral (
      select x.ctid as row, x.version, x.uid, x.labels, x.object, x.sealed from syncsets.objects x
      where x.type = p_type and x.namespace = item.namespace and x.name = item.name offset 0
    ) o on true
  ), numbered as materialized (
    select j.*, v_version + count(*) filter (where j.outcome = 'ok') over (order by j.i) as version from judged j
  ), accepted as materialized (
    select n.i, n.op, n.namespace, n.name, n.version, n.row, n.before, n.changed, n.actor, n.own, n.traceparent,
      coalesce(n.uid, n.stored_uid) as uid,
      coalesce(n.labels, n.stored_labels) as labels,
      case when n."keepSealed" then n.stored_sealed else n.sealed end as sealed,
      coalesce(n.object, n.stored) || case
        when n.op = 'create' then jsonb_build_object('resourceVersion', n.version::text, 'createdAt', v_stamp, 'updatedAt', v_stamp)
        when n.deleting then jsonb_build_object('resourceVersion', n.version::text, 'updatedAt', v_stamp, 'deletedAt', v_stamp)
        when n.op = 'delete' then jsonb_build_object('resourceVersion', n.version::text)
        else jsonb_build_object('resourceVersion', n.version::text, 'updatedAt', v_stamp)
      end as object
    from numbered n where n.outcome = 'ok'
  ), stored as (
    insert into syncsets.objects as o (type, namespace, name, uid, version, labels, object, sealed)
    select p_type, a.namespace, a.name, a.uid, a.version, a.labels, a.object, a.sealed from accepted a where a.op <> 'delete'
    on conflict (type, namespace, name) do update set
      version = excluded.version, labels = excluded.labels, object = excluded.object, sealed = excluded.sealed
  ), deleted as (
    delete from syncsets.objects o
    where o.type = p_type and o.ctid = any (array(select a.row from accepted a where a.op = 'delete'))
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
  select n.i, n.outcome, case when n.outcome = 'ok' then n.version end, v_stamp,
    coalesce(n.uid, n.stored_uid) from numbered n;
end
$$;

-- Down Migration

drop function syncsets.write;
