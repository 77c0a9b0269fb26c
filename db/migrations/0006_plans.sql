-- Up Migration

-- What writes, rules, removals and the end of a worker look at is found by key, as in syncsets.write. Their plans, made
-- once per connection while the tables are empty, walked the type: ten objects with rules, among 20,000, looked at 160,000 rows.
-- A join by key may be planned from either side, also with hash joins off; a lateral sub-query with `offset 0` may not.

-- What the rules say to a batch, as (i, outcome, detail). The caller holds the type's counter row, so nobody else changes its
-- objects, nor the uniques and refs rows of its objects. What an item needs may be changed by an item before it: that is
-- judged `again`, once the earlier one is done.
-- References lead to types whose counter row is not held. The referrer locks its targets `for key share` and believes what
-- the lock returned; whoever removes a target, or marks it as being deleted, locks it `for update` and then looks for
-- referrers in a later statement, whose snapshot shows all that held the lock before. Either sees the other. The waits are
-- in lock order: both kinds of lock are taken in key order, and the one who removes holds the counter rows of the types
-- whose objects it changes (cascade, null) since the beginning of its transaction.
create or replace function syncsets.judge(p_type text, p_items jsonb, p_ruled boolean, p_target boolean)
returns table (i integer, outcome text, detail jsonb)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_found text[];
  v_types text[];
  v_namespaces text[];
  v_names text[];
  v_roots integer[];
begin
  if p_ruled then
    return query
    with item as materialized (
      select * from jsonb_to_recordset(p_items) as x(i integer, op text, namespace text, name text, object jsonb)
    ), wanted as materialized (
      select t.i, t.namespace, t.name, k.rule, k.space, k.digest
      from item t cross join lateral syncsets.unique_keys(p_type, t.namespace, t.object) k where t.op <> 'delete'
    ), held as materialized (
      select w.*, u.namespace as holder_namespace, u.name as holder_name,
        min(w.i) over (partition by w.rule, w.space, w.digest) as first
      from wanted w left join lateral (
        select x.namespace, x.name from syncsets.uniques x
        where x.type = p_type and x.rule = w.rule and x.space = w.space and x.digest = w.digest offset 0
      ) u on true
    )
    select h.i,
      case when before.i is not null or h.holder_name is null then 'again' else 'unique' end,
      jsonb_build_object('rule', h.rule, 'fields', r.fields, 'namespace', h.holder_namespace, 'name', h.holder_name)
    from held h cross join lateral (
      select x.fields from syncsets.rules x where x.type = p_type and x.name = h.rule offset 0
    ) r left join lateral (
      select x.i from item x where x.namespace = h.holder_namespace and x.name = h.holder_name and x.i < h.i
    ) before on true
    where (h.holder_name is null and h.first < h.i)
      or ((h.holder_namespace, h.holder_name) <> (h.namespace, h.name)
        -- a value that the object had before the rule came is not held against it
        and not exists (
          select from (
            select o.namespace, o.object from syncsets.objects o
            where o.type = p_type and o.namespace = h.namespace and o.name = h.name offset 0
          ) o cross join lateral syncsets.unique_keys(p_type, o.namespace, o.object) k
          where k.rule = h.rule and k.space = h.space and k.digest = h.digest));

    select coalesce(array_agg(locked.key), '{}') into v_found from (
      select concat_ws(' ', t.target, t.target_namespace, t.target_name) as key, o.deleted
      from (
        select distinct k.target, k.target_namespace, k.target_name
        from jsonb_to_recordset(p_items) as x(op text, namespace text, name text, object jsonb)
        cross join lateral syncsets.ref_keys(p_type, x.namespace, x.object) k
        where x.op <> 'delete' order by 1, 2, 3
      ) t cross join lateral (
        select x.object ? 'deletedAt' as deleted from syncsets.objects x
        where x.type = t.target and x.namespace = t.target_namespace and x.name = t.target_name
        offset 0 for key share
      ) o
    ) locked where not locked.deleted;
    return query
    with item as materialized (
      select * from jsonb_to_recordset(p_items) as x(i integer, op text, namespace text, name text, object jsonb)
    )
    select t.i,
      case when before.i is not null then 'again' else 'target' end,
      jsonb_build_object('rule', k.rule, 'fields', r.fields, 'type', k.target,
        'namespace', k.target_namespace, 'name', k.target_name)
    from item t cross join lateral syncsets.ref_keys(p_type, t.namespace, t.object) k
    cross join lateral (
      select x.fields from syncsets.rules x where x.type = p_type and x.name = k.rule offset 0
    ) r left join lateral (
      select x.i from item x
      where k.target = p_type and x.namespace = k.target_namespace and x.name = k.target_name and x.i < t.i
    ) before on true
    where t.op <> 'delete'
      and (before.i is not null
        or concat_ws(' ', k.target, k.target_namespace, k.target_name) not in (select unnest(v_found)))
      and (k.target, k.target_namespace, k.target_name) is distinct from (p_type, t.namespace, t.name)
      and not exists (
        select from syncsets.refs f where f.type = p_type and f.namespace = t.namespace and f.name = t.name
          and f.rule = k.rule and f.target = k.target and f.target_namespace = k.target_namespace
          and f.target_name = k.target_name);
  end if;

  if p_target then
    -- what goes with each of them
    with recursive doomed(root, type, namespace, name) as (
      select x.i, p_type collate "C", x.namespace collate "C", x.name collate "C"
      from jsonb_to_recordset(p_items) as x(i integer, op text, namespace text, name text, deleting boolean)
      where x.op = 'delete' or x.deleting
      union
      select d.root, f.type, f.namespace, f.name
      from doomed d cross join lateral (
        select x.type, x.namespace, x.name, x.rule from syncsets.refs x
        where x.target = d.type and x.target_namespace = d.namespace and x.target_name = d.name offset 0
      ) f cross join lateral (
        select from syncsets.rules x where x.type = f.type and x.name = f.rule and x.on_delete = 'cascade' offset 0
      ) r
    )
    select array_agg(d.root), array_agg(d.type), array_agg(d.namespace), array_agg(d.name)
      into v_roots, v_types, v_namespaces, v_names from doomed d;
    if v_roots is null then return; end if;
    perform from (
        select distinct d.type collate "C", d.namespace collate "C", d.name collate "C"
        from unnest(v_types, v_namespaces, v_names) as d(type, namespace, name) order by 1, 2, 3
      ) d cross join lateral (
        select from syncsets.objects o where o.type = d.type and o.namespace = d.namespace and o.name = d.name
        offset 0 for update
      ) o;
    return query
    with doomed as materialized (
      select * from unnest(v_roots, v_types, v_namespaces, v_names) as d(root, type, namespace, name)
    ), user_of as materialized (
      select d.root, f.type, f.namespace, f.name, f.rule, r.fields, (
          select x.i from jsonb_to_recordset(p_items) as x(i integer, namespace text, name text)
          where f.type = p_type and x.namespace = f.namespace and x.name = f.name and x.i < d.root
        ) as before
      from doomed d cross join lateral (
        select x.type, x.namespace, x.name, x.rule from syncsets.refs x
        where x.target = d.type and x.target_namespace = d.namespace and x.target_name = d.name offset 0
      ) f cross join lateral (
        select x.fields from syncsets.rules x where x.type = f.type and x.name = f.rule and x.on_delete = 'refuse' offset 0
      ) r
      where (d.root, f.type, f.namespace, f.name) not in (select x.root, x.type, x.namespace, x.name from doomed x)
    )
    select u.root, case when bool_or(u.before is not null) then 'again' else 'referenced' end,
      jsonb_build_object('count', count(*), 'by', jsonb_path_query_array(jsonb_agg(
          jsonb_build_object('rule', u.rule, 'fields', u.fields, 'type', u.type, 'namespace', u.namespace, 'name', u.name)
          order by u.type, u.namespace, u.name), '$[0 to 9]'))
    from user_of u group by u.root;
  end if;
end
$$;

-- Brings uniques and refs of what a batch wrote up to what is stored now. What a row is removed by is its place: the type's
-- counter row is held, so nobody moves it.
create or replace function syncsets.keep_rules(p_type text, p_keys jsonb) returns void
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
begin
  delete from syncsets.uniques u where u.ctid = any (array(
    select u.row from jsonb_to_recordset(p_keys) as x(namespace text, name text) cross join lateral (
      select u.ctid as row, u.rule, u.space, u.digest from syncsets.uniques u
      where u.type = p_type and u.namespace = x.namespace and u.name = x.name offset 0
    ) u where not exists (
      select from (
        select o.namespace, o.object from syncsets.objects o
        where o.type = p_type and o.namespace = x.namespace and o.name = x.name offset 0
      ) o cross join lateral syncsets.unique_keys(p_type, o.namespace, o.object) k
      where k.rule = u.rule and k.space = u.space and k.digest = u.digest)));
  delete from syncsets.refs f where f.ctid = any (array(
    select f.row from jsonb_to_recordset(p_keys) as x(namespace text, name text) cross join lateral (
      select f.ctid as row, f.rule, f.target, f.target_namespace, f.target_name from syncsets.refs f
      where f.type = p_type and f.namespace = x.namespace and f.name = x.name offset 0
    ) f where not exists (
      select from (
        select o.namespace, o.object from syncsets.objects o
        where o.type = p_type and o.namespace = x.namespace and o.name = x.name offset 0
      ) o cross join lateral syncsets.ref_keys(p_type, o.namespace, o.object) k
      where k.rule = f.rule and k.target = f.target and k.target_namespace = f.target_namespace and k.target_name = f.target_name)));
  insert into syncsets.uniques (type, rule, space, digest, namespace, name)
  select p_type, k.rule, k.space, k.digest, o.namespace, o.name
  from jsonb_to_recordset(p_keys) as x(namespace text, name text) cross join lateral (
    select o.namespace, o.name, o.object from syncsets.objects o
    where o.type = p_type and o.namespace = x.namespace and o.name = x.name offset 0
  ) o cross join lateral syncsets.unique_keys(p_type, o.namespace, o.object) k
  on conflict do nothing;
  insert into syncsets.refs (type, namespace, name, rule, target, target_namespace, target_name)
  select p_type, o.namespace, o.name, k.rule, k.target, k.target_namespace, k.target_name
  from jsonb_to_recordset(p_keys) as x(namespace text, name text) cross join lateral (
    select o.namespace, o.name, o.object from syncsets.objects o
    where o.type = p_type and o.namespace = x.namespace and o.name = x.name offset 0
  ) o cross join lateral syncsets.ref_keys(p_type, o.namespace, o.object) k
  on conflict do nothing;
end
$$;

-- Carries out what references declare for targets that are gone: referrers are deleted (or marked, if they have finalizers),
-- or lose the reference. The caller holds the counter rows of their types.
create or replace function syncsets.follow_removals(p_type text, p_keys jsonb, p_actor text) returns void
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_type text;
  v_items jsonb;
  v_failed jsonb;
begin
  for v_type, v_items in
    with gone as materialized (
      select x.namespace, x.name from jsonb_to_recordset(p_keys) as x(namespace text, name text)
      left join lateral (
        select true as there from syncsets.objects o where o.type = p_type and o.namespace = x.namespace and o.name = x.name offset 0
      ) o on true where o.there is null
    ), referrer as materialized (
      select f.type, f.namespace, f.name, bool_or(r.on_delete = 'cascade') as cascade
      from gone g cross join lateral (
        select f.type, f.namespace, f.name, f.rule from syncsets.refs f
        where f.target = p_type and f.target_namespace = g.namespace and f.target_name = g.name offset 0
      ) f cross join lateral (
        select r.on_delete from syncsets.rules r where r.type = f.type and r.name = f.rule offset 0
      ) r
      where r.on_delete in ('cascade', 'null')
      group by f.type, f.namespace, f.name
    ), stored as materialized (
      select r.*, o.version, o.object, o.object ? 'deletedAt' as deleted,
        coalesce(jsonb_array_length(o.object->'finalizers'), 0) > 0 as finalized,
        jsonb_build_object('resourceVersion', o.object->'resourceVersion', 'updatedAt', o.object->'updatedAt',
          'generation', o.object->'generation') as before,
        jsonb_build_object('generation', coalesce((o.object->>'generation')::integer, 1) + 1) as raised
      from referrer r cross join lateral (
        select o.version, o.object from syncsets.objects o
        where o.type = r.type and o.namespace = r.namespace and o.name = r.name offset 0
      ) o
    ), cleared as (
      -- without the elements that lead to what is gone; a list that becomes empty stays as an empty list
      select s.type, s.namespace, s.name, u.fields[1] as field, s.object->u.fields[1] as former,
        case when jsonb_typeof(s.object->u.fields[1]) = 'array' then
          (select coalesce(jsonb_agg(k.element) filter (where g.name is null), '[]')
            from syncsets.ref_keys(s.type, s.namespace, s.object) k
            left join gone g on k.target = p_type and k.target_namespace = g.namespace and k.target_name = g.name
            where k.rule = u.name)
        end as kept
      from stored s cross join lateral (
        select r.name, r.fields from syncsets.rules r
        where r.type = s.type and r.on_delete = 'null' and r.target = p_type offset 0
      ) u
      where not s.cascade and exists (
        select from (
          select f.target_namespace, f.target_name from syncsets.refs f
          where f.type = s.type and f.namespace = s.namespace and f.name = s.name and f.rule = u.name and f.target = p_type offset 0
        ) f join gone g on f.target_namespace = g.namespace and f.target_name = g.name)
    ), changed as (
      select c.type, c.namespace, c.name, jsonb_object_agg(c.field, c.former) as former,
        coalesce(jsonb_object_agg(c.field, c.kept) filter (where c.kept is not null), '{}') as kept,
        array_agg(c.field) filter (where c.kept is null) as removed
      from cleared c group by c.type, c.namespace, c.name
    ), item as (
      select s.type, jsonb_build_object('namespace', s.namespace, 'name', s.name, 'expect', s.version, 'actor', p_actor,
        'own', false) || case
          when s.cascade and not s.finalized then jsonb_build_object('op', 'delete', 'changed', jsonb_build_array('deletion', 'owners'),
            'before', jsonb_build_object('resourceVersion', s.object->'resourceVersion'))
          when s.cascade then jsonb_build_object('op', 'update', 'changed', jsonb_build_array('deletion', 'owners'), 'deleting', true,
            'object', s.object || s.raised, 'keepSealed', true,
            'before', s.before || jsonb_build_object('deletedAt', null))
          else jsonb_build_object('op', 'update', 'changed', jsonb_build_array('spec'), 'keepSealed', true,
            'object', ((s.object || s.raised) - coalesce(c.removed, '{}')) || c.kept, 'before', s.before || c.former)
        end as item
      from stored s left join changed c on c.type = s.type and c.namespace = s.namespace and c.name = s.name
      where case when s.cascade then not (s.finalized and s.deleted) else c.name is not null end
    ), numbered as (
      select m.type, m.item || jsonb_build_object('i', row_number() over (partition by m.type) - 1) as item from item m
    )
    select n.type, jsonb_agg(n.item order by (n.item->>'i')::integer) from numbered n group by n.type order by n.type
  loop
    select jsonb_agg(jsonb_build_array(w.i, w.outcome, w.detail)) into v_failed
      from syncsets.write(v_type, v_items) w where w.outcome <> 'ok';
    if v_failed is not null then
      raise exception 'the referrers of % could not follow: % %', p_type, v_type, v_failed using errcode = 'triggered_action_exception';
    end if;
  end loop;
end
$$;

-- Deletes rows of a type by their place. A function of its own, because no setting but its own makes this plan right for ever:
-- on an empty table a walk along the primary key looks cheaper than ten rows by place, and walked 20,000 keys for each write.
create function syncsets.delete_rows(p_type text, p_rows tid[]) returns void
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = off set enable_indexonlyscan = off as $$
begin
  delete from syncsets.objects o where o.type = p_type and o.ctid = any (p_rows);
end
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

-- Gives up what a worker holds: its keys are queued again, its maps are free. Called with the worker's row locked.
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
    claimed_at = null, sent_at = null, dirty = false,
    priority = case when w.dirty then greatest(w.priority, w.dirty_priority) else w.priority end
  where w.ctid = any (v_rows);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- Down Migration

create or replace function syncsets.judge(p_type text, p_items jsonb, p_ruled boolean, p_target boolean)
returns table (i integer, outcome text, detail jsonb)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_found text[];
  v_types text[];
  v_namespaces text[];
  v_names text[];
  v_roots integer[];
begin
  if p_ruled then
    return query
    with item as materialized (
      select * from jsonb_to_recordset(p_items) as x(i integer, op text, namespace text, name text, object jsonb)
    ), wanted as materialized (
      select t.i, t.namespace, t.name, k.rule, k.space, k.digest
      from item t cross join lateral syncsets.unique_keys(p_type, t.namespace, t.object) k where t.op <> 'delete'
    ), held as materialized (
      select w.*, u.namespace as holder_namespace, u.name as holder_name,
        min(w.i) over (partition by w.rule, w.space, w.digest) as first
      from wanted w left join lateral (
        select x.namespace, x.name from syncsets.uniques x
        where x.type = p_type and x.rule = w.rule and x.space = w.space and x.digest = w.digest offset 0
      ) u on true
    )
    select h.i,
      case when before.i is not null or h.holder_name is null then 'again' else 'unique' end,
      jsonb_build_object('rule', h.rule, 'fields', r.fields, 'namespace', h.holder_namespace, 'name', h.holder_name)
    from held h join syncsets.rules r on r.type = p_type and r.name = h.rule
    left join lateral (
      select x.i from item x where x.namespace = h.holder_namespace and x.name = h.holder_name and x.i < h.i
    ) before on true
    where (h.holder_name is null and h.first < h.i)
      or ((h.holder_namespace, h.holder_name) <> (h.namespace, h.name)
        -- a value that the object had before the rule came is not held against it
        and not exists (
          select from syncsets.objects o
          cross join lateral syncsets.unique_keys(p_type, o.namespace, o.object) k
          where o.type = p_type and o.namespace = h.namespace and o.name = h.name
            and k.rule = h.rule and k.space = h.space and k.digest = h.digest));

    select coalesce(array_agg(locked.key), '{}') into v_found from (
      select concat_ws(' ', o.type, o.namespace, o.name) as key, o.object ? 'deletedAt' as deleted
      from (
        select distinct k.target, k.target_namespace, k.target_name
        from jsonb_to_recordset(p_items) as x(op text, namespace text, name text, object jsonb)
        cross join lateral syncsets.ref_keys(p_type, x.namespace, x.object) k
        where x.op <> 'delete'
      ) t join syncsets.objects o on o.type = t.target and o.namespace = t.target_namespace and o.name = t.target_name
      order by o.type, o.namespace, o.name for key share of o
    ) locked where not locked.deleted;
    return query
    with item as materialized (
      select * from jsonb_to_recordset(p_items) as x(i integer, op text, namespace text, name text, object jsonb)
    )
    select t.i,
      case when before.i is not null then 'again' else 'target' end,
      jsonb_build_object('rule', k.rule, 'fields', r.fields, 'type', k.target,
        'namespace', k.target_namespace, 'name', k.target_name)
    from item t cross join lateral syncsets.ref_keys(p_type, t.namespace, t.object) k
    join syncsets.rules r on r.type = p_type and r.name = k.rule
    left join lateral (
      select x.i from item x
      where k.target = p_type and x.namespace = k.target_namespace and x.name = k.target_name and x.i < t.i
    ) before on true
    where t.op <> 'delete'
      and (before.i is not null
        or concat_ws(' ', k.target, k.target_namespace, k.target_name) not in (select unnest(v_found)))
      and (k.target, k.target_namespace, k.target_name) is distinct from (p_type, t.namespace, t.name)
      and not exists (
        select from syncsets.refs f where f.type = p_type and f.namespace = t.namespace and f.name = t.name
          and f.rule = k.rule and f.target = k.target and f.target_namespace = k.target_namespace
          and f.target_name = k.target_name);
  end if;

  if p_target then
    -- what goes with each of them
    with recursive doomed(root, type, namespace, name) as (
      select x.i, p_type collate "C", x.namespace collate "C", x.name collate "C"
      from jsonb_to_recordset(p_items) as x(i integer, op text, namespace text, name text, deleting boolean)
      where x.op = 'delete' or x.deleting
      union
      select d.root, f.type, f.namespace, f.name
      from doomed d
      join syncsets.refs f on f.target = d.type and f.target_namespace = d.namespace and f.target_name = d.name
      join syncsets.rules r on r.type = f.type and r.name = f.rule and r.on_delete = 'cascade'
    )
    select array_agg(d.root), array_agg(d.type), array_agg(d.namespace), array_agg(d.name)
      into v_roots, v_types, v_namespaces, v_names from doomed d;
    if v_roots is null then return; end if;
    perform from (
        select distinct d.type, d.namespace, d.name from unnest(v_types, v_namespaces, v_names) as d(type, namespace, name)
      ) d join syncsets.objects o on o.type = d.type and o.namespace = d.namespace and o.name = d.name
      order by o.type, o.namespace, o.name for update of o;
    return query
    with doomed as materialized (
      select * from unnest(v_roots, v_types, v_namespaces, v_names) as d(root, type, namespace, name)
    ), user_of as materialized (
      select d.root, f.*, r.fields, (
          select x.i from jsonb_to_recordset(p_items) as x(i integer, namespace text, name text)
          where f.type = p_type and x.namespace = f.namespace and x.name = f.name and x.i < d.root
        ) as before
      from doomed d
      join syncsets.refs f on f.target = d.type and f.target_namespace = d.namespace and f.target_name = d.name
      join syncsets.rules r on r.type = f.type and r.name = f.rule and r.on_delete = 'refuse'
      where (d.root, f.type, f.namespace, f.name) not in (select x.root, x.type, x.namespace, x.name from doomed x)
    )
    select u.root, case when bool_or(u.before is not null) then 'again' else 'referenced' end,
      jsonb_build_object('count', count(*), 'by', jsonb_path_query_array(jsonb_agg(
          jsonb_build_object('rule', u.rule, 'fields', u.fields, 'type', u.type, 'namespace', u.namespace, 'name', u.name)
          order by u.type, u.namespace, u.name), '$[0 to 9]'))
    from user_of u group by u.root;
  end if;
end
$$;

create or replace function syncsets.keep_rules(p_type text, p_keys jsonb) returns void
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
begin
  delete from syncsets.uniques u using jsonb_to_recordset(p_keys) as x(namespace text, name text)
  where u.type = p_type and u.namespace = x.namespace and u.name = x.name and not exists (
    select from syncsets.objects o cross join lateral syncsets.unique_keys(p_type, o.namespace, o.object) k
    where o.type = p_type and o.namespace = x.namespace and o.name = x.name
      and k.rule = u.rule and k.space = u.space and k.digest = u.digest);
  delete from syncsets.refs f using jsonb_to_recordset(p_keys) as x(namespace text, name text)
  where f.type = p_type and f.namespace = x.namespace and f.name = x.name and not exists (
    select from syncsets.objects o cross join lateral syncsets.ref_keys(p_type, o.namespace, o.object) k
    where o.type = p_type and o.namespace = x.namespace and o.name = x.name
      and k.rule = f.rule and k.target = f.target and k.target_namespace = f.target_namespace and k.target_name = f.target_name);
  insert into syncsets.uniques (type, rule, space, digest, namespace, name)
  select p_type, k.rule, k.space, k.digest, o.namespace, o.name
  from jsonb_to_recordset(p_keys) as x(namespace text, name text)
  join syncsets.objects o on o.type = p_type and o.namespace = x.namespace and o.name = x.name
  cross join lateral syncsets.unique_keys(p_type, o.namespace, o.object) k
  on conflict do nothing;
  insert into syncsets.refs (type, namespace, name, rule, target, target_namespace, target_name)
  select p_type, o.namespace, o.name, k.rule, k.target, k.target_namespace, k.target_name
  from jsonb_to_recordset(p_keys) as x(namespace text, name text)
  join syncsets.objects o on o.type = p_type and o.namespace = x.namespace and o.name = x.name
  cross join lateral syncsets.ref_keys(p_type, o.namespace, o.object) k
  on conflict do nothing;
end
$$;

create or replace function syncsets.follow_removals(p_type text, p_keys jsonb, p_actor text) returns void
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_type text;
  v_items jsonb;
  v_failed jsonb;
begin
  for v_type, v_items in
    with gone as materialized (
      select x.namespace, x.name from jsonb_to_recordset(p_keys) as x(namespace text, name text)
      where not exists (
        select from syncsets.objects o where o.type = p_type and o.namespace = x.namespace and o.name = x.name)
    ), referrer as materialized (
      select f.type, f.namespace, f.name, bool_or(r.on_delete = 'cascade') as cascade
      from gone g
      join syncsets.refs f on f.target = p_type and f.target_namespace = g.namespace and f.target_name = g.name
      join syncsets.rules r on r.type = f.type and r.name = f.rule
      where r.on_delete in ('cascade', 'null')
      group by f.type, f.namespace, f.name
    ), stored as materialized (
      select r.*, o.version, o.object, o.object ? 'deletedAt' as deleted,
        coalesce(jsonb_array_length(o.object->'finalizers'), 0) > 0 as finalized,
        jsonb_build_object('resourceVersion', o.object->'resourceVersion', 'updatedAt', o.object->'updatedAt',
          'generation', o.object->'generation') as before,
        jsonb_build_object('generation', coalesce((o.object->>'generation')::integer, 1) + 1) as raised
      from referrer r join syncsets.objects o on o.type = r.type and o.namespace = r.namespace and o.name = r.name
    ), cleared as (
      -- without the elements that lead to what is gone; a list that becomes empty stays as an empty list
      select s.type, s.namespace, s.name, u.fields[1] as field, s.object->u.fields[1] as former,
        case when jsonb_typeof(s.object->u.fields[1]) = 'array' then
          (select coalesce(jsonb_agg(k.element) filter (where g.name is null), '[]')
            from syncsets.ref_keys(s.type, s.namespace, s.object) k
            left join gone g on k.target = p_type and k.target_namespace = g.namespace and k.target_name = g.name
            where k.rule = u.name)
        end as kept
      from stored s join syncsets.rules u on u.type = s.type and u.on_delete = 'null' and u.target = p_type
      where not s.cascade and exists (
        select from syncsets.refs f join gone g on f.target_namespace = g.namespace and f.target_name = g.name
        where f.type = s.type and f.namespace = s.namespace and f.name = s.name and f.rule = u.name and f.target = p_type)
    ), changed as (
      select c.type, c.namespace, c.name, jsonb_object_agg(c.field, c.former) as former,
        coalesce(jsonb_object_agg(c.field, c.kept) filter (where c.kept is not null), '{}') as kept,
        array_agg(c.field) filter (where c.kept is null) as removed
      from cleared c group by c.type, c.namespace, c.name
    ), item as (
      select s.type, jsonb_build_object('namespace', s.namespace, 'name', s.name, 'expect', s.version, 'actor', p_actor,
        'own', false) || case
          when s.cascade and not s.finalized then jsonb_build_object('op', 'delete', 'changed', jsonb_build_array('deletion', 'owners'),
            'before', jsonb_build_object('resourceVersion', s.object->'resourceVersion'))
          when s.cascade then jsonb_build_object('op', 'update', 'changed', jsonb_build_array('deletion', 'owners'), 'deleting', true,
            'object', s.object || s.raised, 'keepSealed', true,
            'before', s.before || jsonb_build_object('deletedAt', null))
          else jsonb_build_object('op', 'update', 'changed', jsonb_build_array('spec'), 'keepSealed', true,
            'object', ((s.object || s.raised) - coalesce(c.removed, '{}')) || c.kept, 'before', s.before || c.former)
        end as item
      from stored s left join changed c on c.type = s.type and c.namespace = s.namespace and c.name = s.name
      where case when s.cascade then not (s.finalized and s.deleted) else c.name is not null end
    ), numbered as (
      select m.type, m.item || jsonb_build_object('i', row_number() over (partition by m.type) - 1) as item from item m
    )
    select n.type, jsonb_agg(n.item order by (n.item->>'i')::integer) from numbered n group by n.type order by n.type
  loop
    select jsonb_agg(jsonb_build_array(w.i, w.outcome, w.detail)) into v_failed
      from syncsets.write(v_type, v_items) w where w.outcome <> 'ok';
    if v_failed is not null then
      raise exception 'the referrers of % could not follow: % %', p_type, v_type, v_failed using errcode = 'triggered_action_exception';
    end if;
  end loop;
end
$$;

create or replace function syncsets.release_worker(p_controller text, p_worker text, p_reason text) returns integer
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_count integer;
begin
  -- Maps first: the end of a map locks its row and then the keys that it enqueues.
  update syncsets.maps m set nonce = null, worker = null, upto = null where m.controller = p_controller and m.worker = p_worker;
  with held as materialized (
    select w.type, w.namespace, w.name from syncsets.work w
    where w.controller = p_controller and w.worker = p_worker and w.state = 'claimed'
    order by w.type, w.namespace, w.name for update
  ), released as (
    update syncsets.work w set state = 'queued', reason = p_reason, queued_at = clock_timestamp(), nonce = null, worker = null,
      claimed_at = null, sent_at = null, dirty = false,
      priority = case when w.dirty then greatest(w.priority, w.dirty_priority) else w.priority end
    from held h where w.controller = p_controller and w.type = h.type and w.namespace = h.namespace and w.name = h.name
    returning 1
  )
  select count(*) into v_count from released;
  return v_count;
end
$$;

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
  from numbered n;

  if v_ruled then perform syncsets.keep_rules(p_type, p_items); end if;
  if v_target then
    perform syncsets.follow_removals(p_type, jsonb_path_query_array(p_items, '$[*] ? (@.op == "delete")'), p_items->0->>'actor');
  end if;
end
$$;

drop function syncsets.delete_rows;
