-- Up Migration

-- What a claim must know of a key.
create type syncsets.claimed as (
  type text, namespace text, name text, uid uuid, attempts integer, reason text, queued_at timestamptz, priority integer, rank bigint
);

-- As before, and bounded: the objects of one answer have 32 MiB together, as JSON; keys whose objects do not fit stay queued, and a
-- last row without a name says that there are such. 200 objects of 1 MB took an API process from 0.3 to 1.1 GB, and a text beyond
-- 512 MB, which V8 does not make, lost the claims after their commit, again and again. One object is handed out whatever it weighs.
-- `uid` is that of the object; of one that is gone, that of the last change.
create or replace function syncsets.claim(p_controller text, p_worker text, p_max integer, p_seconds integer, p_keys jsonb default null)
returns table (type text, namespace text, name text, uid uuid, attempts integer, reason text, nonce uuid, object text, age double precision)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_nonce uuid := gen_random_uuid();
  -- by their place: the rows are locked, so nobody moves them, and no plan can look for them in another way
  v_rows tid[];
  v_claimed syncsets.claimed[];
  -- Keys are claimed and weighed in steps, each with a share of the bytes, so that heavy objects are not made into text in vain.
  -- One step with a share of its own needs no count of what the others brought: making rows only to count them cost a tenth.
  v_from integer := 1;
  v_step integer := 32;
  v_left integer := 32 * 1024 * 1024;
  v_share integer;
  v_fit integer;
begin
  insert into syncsets.workers as k (controller, worker, expires_at)
    values (p_controller, p_worker, clock_timestamp() + make_interval(secs => p_seconds))
    on conflict (controller, worker) do update set expires_at = excluded.expires_at
      where k.expires_at > clock_timestamp();
  if not found then
    perform from syncsets.workers k where k.controller = p_controller and k.worker = p_worker for update;
    perform syncsets.release_worker(p_controller, p_worker, 'lease expired');
    update syncsets.workers k set expires_at = clock_timestamp() + make_interval(secs => p_seconds)
      where k.controller = p_controller and k.worker = p_worker;
  end if;

  if p_keys is null then
    select array_agg(p.row) into v_rows from (
      select w.ctid as row from syncsets.work w
      where w.controller = p_controller and w.state = 'queued'
      order by w.priority desc, w.rank limit p_max for update skip locked
    ) p;
  else
    select array_agg(p.row) into v_rows from (
      select l.row from jsonb_to_recordset(p_keys) as x(type text, namespace text, name text)
      cross join lateral (
        select w.ctid as row, w.state, w.priority, w.rank from syncsets.work w
        where w.controller = p_controller and w.type = x.type and w.namespace = x.namespace and w.name = x.name
        offset 0 for update skip locked
      ) l
      where l.state = 'queued' order by l.priority desc, l.rank limit p_max
    ) p;
  end if;
  if v_rows is null then
    perform set_config('synchronous_commit', 'off', true);
    return;
  end if;

  loop
    -- 14 MiB for the first step, 9 for the second, all that is left for the last one
    v_share := case when v_from + v_step > cardinality(v_rows) then v_left when v_from = 1 then 14 * 1024 * 1024 else 9 * 1024 * 1024 end;
    with claimed as (
      -- sent_at stays: a key that is left has its message on the broker's queue as before
      update syncsets.work w set state = 'claimed', nonce = v_nonce, worker = p_worker, claimed_at = clock_timestamp(), dirty = false
      where w.ctid = any (v_rows[v_from : v_from + v_step - 1])
      returning row(w.type, w.namespace, w.name, w.uid, w.attempts, w.reason, w.queued_at, w.priority, w.rank)::syncsets.claimed as key
    )
    select array_agg(c.key) into v_claimed from claimed c;

    -- A statement of its own, with a later snapshot: a change whose key was queued already may be committed while the one above
    -- looks for rows. It finds that key unclaimed, so nothing would tell the worker that the object it got is an old one.
    return query
    select s.type, s.namespace, s.name, s.uid, s.attempts, s.reason, v_nonce, s.object,
      extract(epoch from clock_timestamp() - s.queued_at)::double precision
    from (
      select c.type, c.namespace, c.name, coalesce(o.uid, c.uid) as uid, c.attempts, c.reason, c.queued_at, o.object,
        sum(octet_length(o.object)) over (order by c.priority desc, c.rank, c.ordinality rows unbounded preceding) as weight
      from unnest(v_claimed) with ordinality c left join lateral (
        select x.uid, x.object::text as object from syncsets.objects x
        where x.type = c.type and x.namespace = c.namespace and x.name = c.name offset 0
      ) o on true
    ) s
    where s.weight <= v_share or s.weight is null or v_from = 1 and s.weight = octet_length(s.object);
    get diagnostics v_fit = row_count;
    if v_fit < cardinality(v_claimed) then
      update syncsets.work w set state = 'queued', nonce = null, worker = null, claimed_at = null
        where w.ctid = any (array(
          select l.row from (
            select u.* from unnest(v_claimed) with ordinality u order by u.priority desc, u.rank, u.ordinality offset v_fit
          ) c cross join lateral (
            select x.ctid as row from syncsets.work x
            where x.controller = p_controller and x.type = c.type and x.namespace = c.namespace and x.name = c.name offset 0
          ) l));
      return query select null::text, null::text, null::text, null::uuid, null::integer, null::text, null::uuid, null::text,
        null::double precision;
      return;
    end if;
    v_from := v_from + v_step;
    exit when v_from > cardinality(v_rows);
    v_left := v_left - v_share;
    v_step := v_step * 16;
  end loop;
end
$$;

-- As before, but a key that is enqueued for later while it is claimed waits until then: the claimed row keeps the time. It ran again
-- at once, so that a run which enqueued its own key for later went round and round.
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

-- As before, and a key that was enqueued for later while it was claimed is due at that time, or when its result says, whichever comes
-- first.
-- Where 0013 was run before its last change, the worker's place holds whether the claim was held.
do $$
begin
  if exists (select from pg_attribute a where a.attrelid = 'syncsets.judged'::regclass and a.attname = 'held') then
    alter type syncsets.judged rename attribute held to worker;
    alter type syncsets.judged alter attribute worker type text;
  end if;
end
$$;
alter type syncsets.judged add attribute timer timestamptz, add attribute timer_priority integer;
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

-- As before; a key that is queued now is due for no later time.
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

-- Enqueues named keys, with what is known of their objects: messages and claims tell it. Returns how many keys were named.
create function syncsets.enqueue_named(
  p_controller text, p_types text[], p_namespaces text[], p_names text[], p_priority integer, p_reason text, p_not_before timestamptz,
  out count bigint, out woken text[])
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_keys syncsets.key[];
begin
  v_keys := array(
    select row(p_controller, k.type, k.namespace, k.name, o.uid, o.version, p_priority, p_reason)::syncsets.key
    from unnest(p_types, p_namespaces, p_names) as k(type, namespace, name) left join lateral (
      select x.uid, x.version from syncsets.objects x
      where x.type = k.type and x.namespace = k.namespace and x.name = k.name offset 0
    ) o on true);
  count := cardinality(v_keys);
  woken := syncsets.enqueue(v_keys, p_not_before);
end
$$;

-- At which priority the keys of the present stretch of events are queued.
alter table syncsets.maps add column priority integer not null default 0;

-- Down Migration

alter table syncsets.maps drop column priority;
drop function syncsets.enqueue_named;
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
      l.dirty, l.priority, l.attempts, l.rank)::syncsets.judged
    from (
      select r.i, r.result, r."requeueAfter", r.message, r.namespace,
        w.row, w.worker, w.dirty, w.priority, w.attempts, w.rank,
        case when w.dirty then w.dirty_priority else w.priority end as next_priority
      from (
        -- in key order, so that two of these never deadlock
        select * from jsonb_to_recordset(p_results) as r(
          i integer, type text, namespace text, name text, nonce uuid, result text, "requeueAfter" double precision, message text)
        order by r.type, r.namespace, r.name
      ) r left join lateral (
        -- only a claimed key has a nonce; asking for its state would let a plan walk all claims of the controller
        select w.ctid as row, w.worker, w.dirty, w.dirty_priority, w.priority, w.attempts, w.rank
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
    select j.row from unnest(v_judged) j where j.worker = any (v_alive) and not j.again and j.result = 'done' and j.requeue_after is null));

  if exists (select from unnest(v_judged) j where j.worker = any (v_alive) and (j.again or j.result <> 'done' or j.requeue_after is not null)) then
    update syncsets.work w set
      state = case when j.again then 'queued' else 'waiting' end,
      reason = case when j.dirty then 'changed' when j.result = 'released' then 'released' when j.result = 'done' then 'requeueAfter' else j.result end,
      -- a key that fails again and again does not hold up what people change
      priority = case when j.dirty then j.next_priority when j.result = 'done' then -10 when j.result = 'error' then least(j.priority, 0)
        else j.priority end,
      attempts = case j.result when 'done' then 0 when 'released' then j.attempts else j.attempts + 1 end,
      not_before = case
        when j.again then null
        when j.result = 'done' then clock_timestamp() + make_interval(secs => j.requeue_after)
        when j.result = 'terminal' then 'infinity'
        else clock_timestamp() + make_interval(secs => least(300, power(2, least(j.attempts, 10))) * (1 - random() * 0.1))
      end,
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
    from unnest(v_judged) j
    where w.ctid = j.row and j.worker = any (v_alive) and (j.again or j.result <> 'done' or j.requeue_after is not null);
  end if;

  return query select j.i, case when j.worker = any (v_alive) then 'ok' else 'fenced' end,
    coalesce(j.worker = any (v_alive) and j.again, false) from unnest(v_judged) j;
end
$$;
alter type syncsets.judged drop attribute timer, drop attribute timer_priority;
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
      not_before = case when w.state <> 'waiting' then w.not_before
        when p_not_before is null then null else least(w.not_before, p_not_before) end,
      dirty = w.dirty or w.state = 'claimed',
      dirty_priority = case when w.state = 'claimed'
        then greatest(excluded.priority, case when w.dirty then w.dirty_priority else excluded.priority end)
        else w.dirty_priority end
    returning w.controller, w.state
  )
  select array_agg(distinct u.controller) filter (where u.state = 'queued') into v_controllers from upserted u;
  return coalesce(v_controllers, '{}');
end
$$;
create or replace function syncsets.claim(p_controller text, p_worker text, p_max integer, p_seconds integer, p_keys jsonb default null)
returns table (type text, namespace text, name text, uid uuid, attempts integer, reason text, nonce uuid, object text, age double precision)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_nonce uuid := gen_random_uuid();
  -- by their place: the rows are locked, so nobody moves them, and no plan can look for them in another way
  v_rows tid[];
  v_claimed syncsets.work[];
begin
  insert into syncsets.workers as k (controller, worker, expires_at)
    values (p_controller, p_worker, clock_timestamp() + make_interval(secs => p_seconds))
    on conflict (controller, worker) do update set expires_at = excluded.expires_at
      where k.expires_at > clock_timestamp();
  if not found then
    perform from syncsets.workers k where k.controller = p_controller and k.worker = p_worker for update;
    perform syncsets.release_worker(p_controller, p_worker, 'lease expired');
    update syncsets.workers k set expires_at = clock_timestamp() + make_interval(secs => p_seconds)
      where k.controller = p_controller and k.worker = p_worker;
  end if;

  if p_keys is null then
    select array_agg(p.row) into v_rows from (
      select w.ctid as row from syncsets.work w
      where w.controller = p_controller and w.state = 'queued'
      order by w.priority desc, w.rank limit p_max for update skip locked
    ) p;
  else
    select array_agg(p.row) into v_rows from (
      select l.row from jsonb_to_recordset(p_keys) as x(type text, namespace text, name text)
      cross join lateral (
        select w.ctid as row, w.state from syncsets.work w
        where w.controller = p_controller and w.type = x.type and w.namespace = x.namespace and w.name = x.name
        offset 0 for update skip locked
      ) l
      where l.state = 'queued' limit p_max
    ) p;
  end if;
  with claimed as (
    update syncsets.work w set state = 'claimed', nonce = v_nonce, worker = p_worker, claimed_at = clock_timestamp(),
      dirty = false, sent_at = null
    where w.ctid = any (v_rows)
    returning w
  )
  select array_agg(c.w) into v_claimed from claimed c;
  if v_claimed is null then
    perform set_config('synchronous_commit', 'off', true);
    return;
  end if;

  -- A statement of its own, with a later snapshot: a change whose key was queued already may be committed while the one above
  -- looks for rows. It finds that key unclaimed, so nothing would tell the worker that the object it got is an old one.
  return query
  select c.type, c.namespace, c.name, c.uid, c.attempts, c.reason, v_nonce, o.object::text,
    extract(epoch from clock_timestamp() - c.queued_at)::double precision
  from unnest(v_claimed) c left join lateral (
    select x.object from syncsets.objects x where x.type = c.type and x.namespace = c.namespace and x.name = c.name offset 0
  ) o on true
  order by c.priority desc, c.rank;
end
$$;
drop type syncsets.claimed;
