-- Up Migration

-- A result and the claim that it is about, as both are when the claim's row is locked.
create type syncsets.judged as (
  i integer, result text, requeue_after double precision, message text,
  row tid, worker text, again boolean,
  -- the key's priority when it is queued again; several of a namespace stand one behind the other, from place 1
  next_priority integer, place bigint,
  dirty boolean, priority integer, attempts integer, rank bigint
);

-- As before, at half the cost: each row is looked up once, and only results that keep their key run the statement that moves it.
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

-- As before, but only a claim that gives something waits for the disk. A worker counts on its lease from answers with claims and
-- from renewals.
alter function syncsets.claim(text, text, integer, integer, jsonb) reset synchronous_commit;
alter function syncsets.claim_instead(text, text, integer, integer, jsonb) reset synchronous_commit;
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

-- Takes results and then claims, in one call and one transaction: for a worker that is busy each call costs as much as a few keys.
-- First come the rows of the results (i, state, queued), then those of the claims. The worker's row is locked before its keys, as
-- where its lease ends.
create function syncsets.done_and_claim(
  p_controller text, p_results jsonb, p_worker text, p_max integer, p_seconds integer, p_messages jsonb default null)
returns table (i integer, state text, queued boolean,
  type text, namespace text, name text, uid uuid, attempts integer, reason text, nonce uuid, object text, age double precision)
language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  v_commit text := current_setting('synchronous_commit');
  v_claimed integer;
begin
  perform from syncsets.workers k where k.controller = p_controller and k.worker = p_worker for update;
  -- does not wait for the disk
  return query select d.i, d.state, d.queued, null::text, null::text, null::text, null::uuid, null::integer, null::text, null::uuid,
    null::text, null::double precision from syncsets.done(p_controller, p_results) d;
  if p_messages is null then
    return query select null::integer, null::text, null::boolean, c.* from syncsets.claim(p_controller, p_worker, p_max, p_seconds) c;
  else
    return query select null::integer, null::text, null::boolean, c.*
      from syncsets.claim_instead(p_controller, p_worker, p_max, p_seconds, p_messages) c;
  end if;
  get diagnostics v_claimed = row_count;
  if v_claimed > 0 then perform set_config('synchronous_commit', v_commit, true); end if;
end
$$;

-- Down Migration

drop function syncsets.done_and_claim;
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
  -- A claim or a result that is lost in a crash of the database makes its key run once more: no commit here waits for the disk.
  perform set_config('synchronous_commit', 'off', true);
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
alter function syncsets.claim(text, text, integer, integer, jsonb) set synchronous_commit = on;
alter function syncsets.claim_instead(text, text, integer, integer, jsonb) set synchronous_commit = on;
create or replace function syncsets.done(p_controller text, p_results jsonb)
returns table (i integer, state text, queued boolean)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  -- in key order, so that two of these never deadlock
  perform from (
    select r.* from jsonb_to_recordset(p_results) as r(type text, namespace text, name text) order by r.type, r.namespace, r.name
  ) r cross join lateral (
    select from syncsets.work w
    where w.controller = p_controller and w.type = r.type and w.namespace = r.namespace and w.name = r.name
    offset 0 for update
  ) l;

  return query
  with judged as materialized (
    select r.i, r.result, r."requeueAfter", r.message, l.*,
      l.nonce is not null and k.worker is not null as held,
      l.dirty or r.result = 'released' as again,
      -- several of a namespace stand one behind the other
      row_number() over (partition by r.namespace, case when l.dirty then l.dirty_priority else l.priority end order by r.i) as place
    from jsonb_to_recordset(p_results) as r(
      i integer, type text, namespace text, name text, nonce uuid, result text, "requeueAfter" double precision, message text)
    left join lateral (
      -- only a claimed key has a nonce; asking for its state would let a plan walk all claims of the controller
      select w.ctid as row, w.nonce, w.worker, w.dirty, w.dirty_priority, w.priority, w.attempts, w.rank
      from syncsets.work w
      where w.controller = p_controller and w.type = r.type and w.namespace = r.namespace and w.name = r.name
        and w.nonce = r.nonce offset 0
    ) l on true
    left join lateral (
      select x.worker from syncsets.workers x
      where x.controller = p_controller and x.worker = l.worker and x.expires_at > clock_timestamp() offset 0
    ) k on true
  ), finished as (
    delete from syncsets.work w where w.ctid = any (array(
      select j.row from judged j where j.held and not j.again and j.result = 'done' and j."requeueAfter" is null))
  ), kept as (
    update syncsets.work w set
      state = case when j.again then 'queued' else 'waiting' end,
      reason = case when j.dirty then 'changed' when j.result = 'released' then 'released' when j.result = 'done' then 'requeueAfter' else j.result end,
      -- a key that fails again and again does not hold up what people change
      priority = case when j.dirty then j.dirty_priority when j.result = 'done' then -10 when j.result = 'error' then least(j.priority, 0)
        else j.priority end,
      attempts = case j.result when 'done' then 0 when 'released' then j.attempts else j.attempts + 1 end,
      not_before = case
        when j.again then null
        when j.result = 'done' then clock_timestamp() + make_interval(secs => j."requeueAfter")
        when j.result = 'terminal' then 'infinity'
        else clock_timestamp() + make_interval(secs => least(300, power(2, least(j.attempts, 10))) * (1 - random() * 0.1))
      end,
      last_error = case when j.result in ('error', 'terminal') then j.message when j.result = 'done' then null else w.last_error end,
      queued_at = clock_timestamp(),
      -- in its namespace's turn, see syncsets.enqueue
      rank = case when j.again then greatest(
        coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
          and q.priority = case when j.dirty then j.dirty_priority else j.priority end order by q.rank limit 1), 0),
        coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
          and q.priority = case when j.dirty then j.dirty_priority else j.priority end
          and q.namespace = w.namespace order by q.rank desc limit 1), 0)) + j.place else j.rank end,
      nonce = null, worker = null, claimed_at = null, sent_at = null, dirty = false
    from judged j
    where w.ctid = j.row and j.held and (j.again or j.result <> 'done' or j."requeueAfter" is not null)
  )
  select j.i, case when j.held then 'ok' else 'fenced' end, j.held and j.again from judged j;
end
$$;
drop type syncsets.judged;
