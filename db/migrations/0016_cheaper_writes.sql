-- Up Migration

-- An update of an object leaves the indexes alone (HOT) where its page has room and nothing that an index reads has changed.
-- An index on an expression reads the whole column: that of the owners read `object`, which every write changes, so that each
-- status written made an entry in each index anew. Its keys have a column of their own now; null: the object has no owners.
alter table syncsets.objects add column owner_keys jsonb;
update syncsets.objects o set owner_keys = syncsets.owner_keys(o.object) where o.object ? 'owners';
drop index syncsets.objects_owners;
create index objects_owners on syncsets.objects using gin (owner_keys) with (fastupdate = off) where owner_keys is not null;

-- Room in each page, as in those of types that are made later (db/types.ts).
do $$
declare
  v_partition regclass;
begin
  for v_partition in select p.inhrelid from pg_inherits p where p.inhparent = 'syncsets.objects'::regclass loop
    execute format('alter table %s set (fillfactor = 80)', v_partition);
  end loop;
end
$$;

-- What a write gives one item as, see syncsets.write.
create type syncsets.write_item as (
  i integer, op text, namespace text, name text, uid uuid, expect bigint, object jsonb, labels jsonb, sealed jsonb,
  "keepSealed" boolean, deleting boolean, before jsonb, changed text[], actor text, own boolean, traceparent text,
  answer jsonb
);

-- What a write sets in the object itself.
create function syncsets.stamps(p_op text, p_deleting boolean, p_version bigint, p_stamp text) returns jsonb language sql stable as $$
  select case
    when p_op = 'create' then jsonb_build_object('resourceVersion', p_version::text, 'createdAt', p_stamp, 'updatedAt', p_stamp)
    when p_deleting then jsonb_build_object('resourceVersion', p_version::text, 'updatedAt', p_stamp, 'deletedAt', p_stamp)
    when p_op = 'delete' then jsonb_build_object('resourceVersion', p_version::text)
    else jsonb_build_object('resourceVersion', p_version::text, 'updatedAt', p_stamp)
  end
$$;

create function syncsets.event_op(p_op text) returns text language sql immutable as $$
  select case p_op when 'create' then 'ADDED' when 'update' then 'MODIFIED' else 'DELETED' end
$$;

-- Applies a batch of writes to one type: counter, objects and event rows in one transaction. Items are independent: one that
-- fails is answered with its outcome and leaves the others alone. A key may occur once in a batch.
-- An item: {i, op: create | update | delete, namespace, name, uid, expect, object, labels, sealed, keepSealed, deleting,
--   before, changed, actor, claim: {controller, type, namespace, name, nonce}, traceparent,
--   answer: {key, line, request}}.
-- `expect` is the version that the caller computed the item from; for a delete `object` is left out. `answer` is stored with the
-- object, if no answer has this key and line.
-- Outcomes: ok, exists, missing, conflict, fenced; of the rules unique, target (a reference leads nowhere), referenced, with
-- the other object in `detail`; repeated, with the first answer in `detail`; again: to be sent once more when the rest is done.
-- One item that nothing speaks against takes simple statements by key, which cost a third less; for eight the statement for many
-- is the cheaper one already. db/write.test.ts holds both to the same.
-- Its plans are made once per connection, often while the tables are empty, and must still be right at a million rows: each
-- row is looked up by its key, never found by a scan of its table (64 creates took 17 ms instead of 5 after 50,000 others).
create or replace function syncsets.write(p_type text, p_items jsonb)
returns table (i integer, outcome text, version bigint, stamp text, uid uuid, detail jsonb)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_version bigint;
  v_at timestamptz;
  v_stamp text;
  v_fenced integer[] := '{}';
  -- of the items that rules or earlier answers speak against: index, outcome, detail
  v_judged jsonb := '{}';
  v_ruled boolean;
  v_target boolean;
  v_removing boolean;
  v_alone boolean;
  v_item syncsets.write_item;
  v_object jsonb;
  v_labels jsonb;
  v_claim jsonb;
  v_worker text;
begin
  v_removing := p_items @? '$[*] ? (@.op == "delete" || @.deleting == true)';
  if v_removing then
    select t.target into v_target from syncsets.types t where t.type = p_type;
    if v_target then
      -- the types whose objects change with what is removed here
      perform from syncsets.types t where t.type in (
          with recursive touched(type) as (
            select p_type collate "C" union
            select r.type from touched c join syncsets.rules r on r.target = c.type and r.on_delete in ('cascade', 'null')
          ) select c.type from touched c)
        order by t.type for update;
    end if;
  end if;
  select t.version, t.ruled, t.target and v_removing into v_version, v_ruled, v_target
    from syncsets.types t where t.type = p_type for update;
  if not found then raise exception 'type % has no counter row', p_type using errcode = 'no_data_found'; end if;
  v_at := clock_timestamp();
  v_stamp := syncsets.rfc3339(v_at);

  if v_ruled or v_target then
    select coalesce(jsonb_object_agg(j.i, jsonb_build_array(j.outcome, j.detail)), '{}') into v_judged from (
      select distinct on (x.i) x.i, x.outcome, x.detail from syncsets.judge(p_type, p_items, v_ruled, v_target) x
      order by x.i, x.outcome <> 'again'
    ) j;
  end if;

  if p_items @? '$[*].answer' then
    -- an answer that is too old to be replayed makes room for a new one
    delete from syncsets.answers a using jsonb_to_recordset(p_items) as x(answer jsonb)
      where a.key = x.answer->>'key' and a.line = (x.answer->>'line')::integer and a.at < clock_timestamp() - interval '24 hours';
    select v_judged || coalesce(jsonb_object_agg(x.i, jsonb_build_array('repeated',
        jsonb_build_object('request', a.request, 'status', a.status, 'body', a.body))), '{}') into v_judged
      from jsonb_to_recordset(p_items) as x(i integer, answer jsonb)
      join syncsets.answers a on a.key = x.answer->>'key' and a.line = (x.answer->>'line')::integer;
  end if;

  v_alone := jsonb_array_length(p_items) = 1;
  if v_alone and p_items @? '$[0].claim' then
    -- as below; once its row is locked, the claim cannot be lost
    v_claim := p_items->0->'claim';
    select w.worker into v_worker from syncsets.work w
      where w.controller = v_claim->>'controller' and w.type = v_claim->>'type' and w.namespace = v_claim->>'namespace'
        and w.name = v_claim->>'name' and w.nonce = (v_claim->>'nonce')::uuid
      for share;
    perform from syncsets.workers k
      where k.controller = v_claim->>'controller' and k.worker = v_worker and k.expires_at > clock_timestamp();
    if not found then v_fenced := array[(p_items->0->>'i')::integer]; end if;
  elsif p_items @? '$[*].claim' then
    -- the claimed rows are locked, in key order, so that a claim cannot be lost between this check and the commit
    perform from (
      select x.claim->>'controller' as controller, x.claim->>'type' as type, x.claim->>'namespace' as namespace, x.claim->>'name' as name
      from jsonb_to_recordset(p_items) as x(claim jsonb) where x.claim is not null order by 1, 2, 3, 4
    ) c cross join lateral (
      select from syncsets.work w
      where w.controller = c.controller and w.type = c.type and w.namespace = c.namespace and w.name = c.name
      offset 0 for share
    ) l;
    select coalesce(array_agg(x.i), '{}') into v_fenced
    from jsonb_to_recordset(p_items) as x(i integer, claim jsonb)
    left join lateral (
      select k.worker from syncsets.work w join syncsets.workers k on k.controller = w.controller and k.worker = w.worker
      where w.controller = x.claim->>'controller' and w.type = x.claim->>'type' and w.namespace = x.claim->>'namespace'
        and w.name = x.claim->>'name' and w.nonce = (x.claim->>'nonce')::uuid and k.expires_at > clock_timestamp()
      offset 0
    ) held on true
    where x.claim is not null and held.worker is null;
  end if;

  -- what needs more than its own row, or an object merged with the stored one, is left to the statement for many
  if v_alone and v_judged = '{}' and v_fenced = '{}' and not p_items->0 ? 'answer'
    and (p_items->0 ? 'object' or p_items->0->>'op' = 'delete')
  then
    v_item := jsonb_populate_record(null::syncsets.write_item, p_items->0);
    i := v_item.i;
    outcome := 'ok';
    version := v_version + 1;
    stamp := v_stamp;
    uid := v_item.uid;
    v_object := v_item.object || syncsets.stamps(v_item.op, v_item.deleting, version, v_stamp);
    if v_item.op = 'create' then
      v_labels := v_item.labels;
      insert into syncsets.objects (type, namespace, name, uid, version, labels, object, sealed, owner_keys)
      values (p_type, v_item.namespace, v_item.name, v_item.uid, v_version + 1, v_labels, v_object,
        case when v_item."keepSealed" then null else v_item.sealed end,
        case when v_object ? 'owners' then syncsets.owner_keys(v_object) end)
      on conflict do nothing;
      if not found then outcome := 'exists'; end if;
    else
      if v_item.op = 'delete' then
        delete from syncsets.objects o
        where o.type = p_type and o.namespace = v_item.namespace and o.name = v_item.name
          and o.version = coalesce(v_item.expect, o.version)
        returning coalesce(v_item.uid, o.uid), coalesce(v_item.labels, o.labels),
          coalesce(v_object, o.object || syncsets.stamps('delete', v_item.deleting, v_version + 1, v_stamp))
        into uid, v_labels, v_object;
      else
        update syncsets.objects o set
          version = v_version + 1, labels = coalesce(v_item.labels, o.labels), object = v_object,
          sealed = case when v_item."keepSealed" then o.sealed else v_item.sealed end,
          owner_keys = case when v_object ? 'owners' then syncsets.owner_keys(v_object) end
        where o.type = p_type and o.namespace = v_item.namespace and o.name = v_item.name
          and o.version = coalesce(v_item.expect, o.version)
        returning coalesce(v_item.uid, o.uid), o.labels into uid, v_labels;
      end if;
      if not found then
        select coalesce(v_item.uid, o.uid) into uid from syncsets.objects o
          where o.type = p_type and o.namespace = v_item.namespace and o.name = v_item.name;
        if found then outcome := 'conflict'; else outcome := 'missing'; uid := v_item.uid; end if;
      end if;
    end if;
    if outcome = 'ok' then
      insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed,
        actor, own, traceparent)
      values (p_type, v_version + 1, v_version, v_at, syncsets.event_op(v_item.op), v_item.namespace, v_item.name, uid, v_labels,
        v_object, v_item.before, v_item.changed, v_item.actor, v_item.own, v_item.traceparent);
      update syncsets.types t set version = v_version + 1 where t.type = p_type;
    else
      version := null;
    end if;
    return next;
  else
    return query
    with item as materialized (
      select * from jsonb_populate_recordset(null::syncsets.write_item, p_items)
    ), judged as materialized (
      select item.*, o.object as stored, o.labels as stored_labels, o.uid as stored_uid, o.sealed as stored_sealed, o.row,
        case
          when v_judged->item.i::text->>0 = 'repeated' then 'repeated'
          when item.i = any (v_fenced) then 'fenced'
          when item.op = 'create' and o.version is not null then 'exists'
          when item.op = 'create' then coalesce(v_judged->item.i::text->>0, 'ok')
          when o.version is null then 'missing'
          when o.version <> item.expect then 'conflict'
          else coalesce(v_judged->item.i::text->>0, 'ok')
        end as outcome
      from item left join lateral (
        select x.ctid as row, x.version, x.uid, x.labels, case when item.object is null then x.object end as object, x.sealed
        from syncsets.objects x
        where x.type = p_type and x.namespace = item.namespace and x.name = item.name offset 0
      ) o on true
    ), numbered as materialized (
      select j.*, v_version + count(*) filter (where j.outcome = 'ok') over (order by j.i) as version from judged j
    ), accepted as materialized (
      select n.i, n.op, n.namespace, n.name, n.version, n.row, n.before, n.changed, n.actor, n.own, n.traceparent, n.answer,
        coalesce(n.uid, n.stored_uid) as uid,
        coalesce(n.labels, n.stored_labels) as labels,
        case when n."keepSealed" then n.stored_sealed else n.sealed end as sealed,
        coalesce(n.object, n.stored) || syncsets.stamps(n.op, n.deleting, n.version, v_stamp) as object
      from numbered n where n.outcome = 'ok'
    ), stored as (
      insert into syncsets.objects as o (type, namespace, name, uid, version, labels, object, sealed, owner_keys)
      select p_type, a.namespace, a.name, a.uid, a.version, a.labels, a.object, a.sealed,
        case when a.object ? 'owners' then syncsets.owner_keys(a.object) end
      from accepted a where a.op <> 'delete'
      on conflict (type, namespace, name) do update set
        version = excluded.version, labels = excluded.labels, object = excluded.object, sealed = excluded.sealed,
        owner_keys = excluded.owner_keys
    ), deleted as materialized (
      select syncsets.delete_rows(p_type, array(select a.row from accepted a where a.op = 'delete'))
      where exists (select from accepted a where a.op = 'delete')
    ), logged as (
      insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed,
        actor, own, traceparent)
      select p_type, a.version, a.version - 1, v_at,
        syncsets.event_op(a.op),
        a.namespace, a.name, a.uid, a.labels, a.object, a.before, a.changed, a.actor, a.own, a.traceparent
      from accepted a
    ), answered as (
      insert into syncsets.answers (key, line, request, status, body)
      select a.answer->>'key', (a.answer->>'line')::integer, a.answer->>'request', case a.op when 'create' then 201 else 200 end, a.object
      from accepted a where a.answer is not null order by 1, 2
    ), counted as (
      update syncsets.types t set version = v_version + (select count(*) from accepted) where t.type = p_type
        and exists (select from accepted)
    )
    select n.i, n.outcome, case when n.outcome = 'ok' then n.version end, v_stamp,
      coalesce(n.uid, n.stored_uid),
      case when n.outcome <> 'ok' then v_judged->n.i::text->1 end
    -- always true: what nobody asks for is not carried out
    from numbered n where (select count(*) from deleted) < 2;
  end if;

  if v_ruled then perform syncsets.keep_rules(p_type, p_items); end if;
  if v_target then
    perform syncsets.follow_removals(p_type, jsonb_path_query_array(p_items, '$[*] ? (@.op == "delete")'), p_items->0->>'actor');
  end if;
end
$$;

-- Down Migration

create or replace function syncsets.write(p_type text, p_items jsonb)
returns table (i integer, outcome text, version bigint, stamp text, uid uuid, detail jsonb)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_version bigint;
  v_at timestamptz;
  v_stamp text;
  v_fenced integer[] := '{}';
  -- of the items that rules or earlier answers speak against: index, outcome, detail
  v_judged jsonb := '{}';
  v_ruled boolean;
  v_target boolean;
  v_removing boolean := false;
begin
  select t.target into v_target from syncsets.types t where t.type = p_type;
  if v_target then
    v_removing := p_items @? '$[*] ? (@.op == "delete" || @.deleting == true)';
    if v_removing then
      -- the types whose objects change with what is removed here
      perform from syncsets.types t where t.type in (
          with recursive touched(type) as (
            select p_type collate "C" union
            select r.type from touched c join syncsets.rules r on r.target = c.type and r.on_delete in ('cascade', 'null')
          ) select c.type from touched c)
        order by t.type for update;
    end if;
  end if;
  select t.version, t.ruled, t.target and v_removing into v_version, v_ruled, v_target
    from syncsets.types t where t.type = p_type for update;
  if not found then raise exception 'type % has no counter row', p_type using errcode = 'no_data_found'; end if;
  v_at := clock_timestamp();
  v_stamp := syncsets.rfc3339(v_at);

  if v_ruled or v_target then
    select coalesce(jsonb_object_agg(j.i, jsonb_build_array(j.outcome, j.detail)), '{}') into v_judged from (
      select distinct on (x.i) x.i, x.outcome, x.detail from syncsets.judge(p_type, p_items, v_ruled, v_target) x
      order by x.i, x.outcome <> 'again'
    ) j;
  end if;

  if p_items @? '$[*].answer' then
    -- an answer that is too old to be replayed makes room for a new one
    delete from syncsets.answers a using jsonb_to_recordset(p_items) as x(answer jsonb)
      where a.key = x.answer->>'key' and a.line = (x.answer->>'line')::integer and a.at < clock_timestamp() - interval '24 hours';
    select v_judged || coalesce(jsonb_object_agg(x.i, jsonb_build_array('repeated',
        jsonb_build_object('request', a.request, 'status', a.status, 'body', a.body))), '{}') into v_judged
      from jsonb_to_recordset(p_items) as x(i integer, answer jsonb)
      join syncsets.answers a on a.key = x.answer->>'key' and a.line = (x.answer->>'line')::integer;
  end if;

  if p_items @? '$[*].claim' then
    -- the claimed rows are locked, in key order, so that a claim cannot be lost between this check and the commit
    perform from (
      select x.claim->>'controller' as controller, x.claim->>'type' as type, x.claim->>'namespace' as namespace, x.claim->>'name' as name
      from jsonb_to_recordset(p_items) as x(claim jsonb) where x.claim is not null order by 1, 2, 3, 4
    ) c cross join lateral (
      select from syncsets.work w
      where w.controller = c.controller and w.type = c.type and w.namespace = c.namespace and w.name = c.name
      offset 0 for share
    ) l;
    select coalesce(array_agg(x.i), '{}') into v_fenced
    from jsonb_to_recordset(p_items) as x(i integer, claim jsonb)
    left join lateral (
      select k.worker from syncsets.work w join syncsets.workers k on k.controller = w.controller and k.worker = w.worker
      where w.controller = x.claim->>'controller' and w.type = x.claim->>'type' and w.namespace = x.claim->>'namespace'
        and w.name = x.claim->>'name' and w.nonce = (x.claim->>'nonce')::uuid and k.expires_at > clock_timestamp()
      offset 0
    ) held on true
    where x.claim is not null and held.worker is null;
  end if;

  return query
  with item as materialized (
    select * from jsonb_to_recordset(p_items) as x(
      i integer, op text, namespace text, name text, uid uuid, expect bigint, object jsonb, labels jsonb, sealed jsonb,
      "keepSealed" boolean, deleting boolean, before jsonb, changed text[], actor text, own boolean, traceparent text,
      answer jsonb)
  ), judged as materialized (
    select item.*, o.object as stored, o.labels as stored_labels, o.uid as stored_uid, o.sealed as stored_sealed, o.row,
      case
        when v_judged->item.i::text->>0 = 'repeated' then 'repeated'
        when item.i = any (v_fenced) then 'fenced'
        when item.op = 'create' and o.version is not null then 'exists'
        when item.op = 'create' then coalesce(v_judged->item.i::text->>0, 'ok')
        when o.version is null then 'missing'
        when o.version <> item.expect then 'conflict'
        else coalesce(v_judged->item.i::text->>0, 'ok')
      end as outcome
    from item left join lateral (
      select x.ctid as row, x.version, x.uid, x.labels, x.object, x.sealed from syncsets.objects x
      where x.type = p_type and x.namespace = item.namespace and x.name = item.name offset 0
    ) o on true
  ), numbered as materialized (
    select j.*, v_version + count(*) filter (where j.outcome = 'ok') over (order by j.i) as version from judged j
  ), accepted as materialized (
    select n.i, n.op, n.namespace, n.name, n.version, n.row, n.before, n.changed, n.actor, n.own, n.traceparent, n.answer,
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
  ), deleted as materialized (
    select syncsets.delete_rows(p_type, array(select a.row from accepted a where a.op = 'delete'))
    where exists (select from accepted a where a.op = 'delete')
  ), logged as (
    insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed,
      actor, own, traceparent)
    select p_type, a.version, a.version - 1, v_at,
      case a.op when 'create' then 'ADDED' when 'update' then 'MODIFIED' else 'DELETED' end,
      a.namespace, a.name, a.uid, a.labels, a.object, a.before, a.changed, a.actor, a.own, a.traceparent
    from accepted a
  ), answered as (
    insert into syncsets.answers (key, line, request, status, body)
    select a.answer->>'key', (a.answer->>'line')::integer, a.answer->>'request', case a.op when 'create' then 201 else 200 end, a.object
    from accepted a where a.answer is not null order by 1, 2
  ), counted as (
    update syncsets.types t set version = v_version + (select count(*) from accepted) where t.type = p_type
      and exists (select from accepted)
  )
  select n.i, n.outcome, case when n.outcome = 'ok' then n.version end, v_stamp,
    coalesce(n.uid, n.stored_uid),
    case when n.outcome <> 'ok' then v_judged->n.i::text->1 end
  -- always true: what nobody asks for is not carried out
  from numbered n where (select count(*) from deleted) < 2;

  if v_ruled then perform syncsets.keep_rules(p_type, p_items); end if;
  if v_target then
    perform syncsets.follow_removals(p_type, jsonb_path_query_array(p_items, '$[*] ? (@.op == "delete")'), p_items->0->>'actor');
  end if;
end
$$;

drop function syncsets.event_op, syncsets.stamps;
drop type syncsets.write_item;
do $$
declare
  v_partition regclass;
begin
  for v_partition in select p.inhrelid from pg_inherits p where p.inhparent = 'syncsets.objects'::regclass loop
    execute format('alter table %s reset (fillfactor)', v_partition);
  end loop;
end
$$;
drop index syncsets.objects_owners;
create index objects_owners on syncsets.objects using gin (syncsets.owner_keys(object)) with (fastupdate = off)
  where object ? 'owners';
alter table syncsets.objects drop column owner_keys;
