-- Up Migration

-- Gives up what a worker holds: its keys are queued again, its maps are free. Called with the worker's row locked.
create function syncsets.release_worker(p_controller text, p_worker text, p_reason text) returns integer
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

-- Claims up to p_max queued keys for a worker (or exactly p_keys, as far as they are queued), the most urgent first, and
-- extends the worker's lease. A worker whose lease ran out has lost what it held: that is queued again first.
create function syncsets.claim(p_controller text, p_worker text, p_max integer, p_seconds integer, p_keys jsonb default null)
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

-- Takes results of claims: {i, type, namespace, name, nonce, result, requeueAfter (seconds), message}.
-- Back-off after an error: 1 s * 2^n, at most 5 min, with jitter of up to a tenth; never given up.
create function syncsets.done(p_controller text, p_results jsonb)
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
      l.dirty or r.result = 'released' as again
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
      rank = case when j.again then coalesce((select q.rank from syncsets.work q where q.controller = p_controller and q.state = 'queued'
        and q.priority = case when j.dirty then j.dirty_priority else j.priority end
        order by q.rank limit 1), 0) + 1 else j.rank end,
      nonce = null, worker = null, claimed_at = null, sent_at = null, dirty = false
    from judged j
    where w.ctid = j.row and j.held and (j.again or j.result <> 'done' or j."requeueAfter" is not null)
  )
  select j.i, case when j.held then 'ok' else 'fenced' end, j.held and j.again from judged j;
end
$$;

-- Queues waiting keys that are due. A key that is due again after requeueAfter keeps the low priority of a resync.
create function syncsets.promote(p_limit integer) returns text[]
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_woken text[];
begin
  with due as materialized (
    select w.controller, w.type, w.namespace, w.name from syncsets.work w
    where w.state = 'waiting' and w.not_before <= clock_timestamp()
    order by w.not_before limit p_limit for update skip locked
  ), promoted as (
    update syncsets.work w set state = 'queued', not_before = null, queued_at = clock_timestamp(), sent_at = null,
      rank = coalesce((select q.rank from syncsets.work q where q.controller = w.controller and q.state = 'queued'
        and q.priority = w.priority order by q.rank limit 1), 0) + 1
    from due d
    where w.controller = d.controller and w.type = d.type and w.namespace = d.namespace and w.name = d.name
    returning w.controller
  )
  select coalesce(array_agg(distinct p.controller), '{}') into v_woken from promoted p;
  return v_woken;
end
$$;

-- Ends the leases that have run out and queues what their workers held.
create function syncsets.expire_workers() returns text[]
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_worker record;
  v_woken text[] := '{}';
begin
  for v_worker in
    select k.controller, k.worker from syncsets.workers k where k.expires_at <= clock_timestamp()
    order by k.controller, k.worker for update skip locked
  loop
    if syncsets.release_worker(v_worker.controller, v_worker.worker, 'lease expired') > 0 then
      v_woken := v_woken || v_worker.controller;
    end if;
    delete from syncsets.workers k where k.controller = v_worker.controller and k.worker = v_worker.worker;
  end loop;
  return v_woken;
end
$$;

-- Down Migration

drop function syncsets.expire_workers, syncsets.promote, syncsets.done, syncsets.claim, syncsets.release_worker;
