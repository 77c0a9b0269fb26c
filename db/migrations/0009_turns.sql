-- Up Migration

-- What is out on a controller's RabbitMQ queue is counted ten times a second: a million queued keys must not be read for it.
create index work_sent on syncsets.work (controller, sent_at) where state = 'queued' and sent_at is not null;

-- When a worker of the controller was last seen alive, to the minute: who has gone away for good is found by it.
alter table syncsets.controllers add column seen_at timestamptz not null default clock_timestamp();

-- Watched types are mapped in turn: the one that was claimed longest ago first.
alter table syncsets.maps add column claimed_at timestamptz not null default '-infinity';

-- Controllers that were deleted and whose queue is perhaps still on the broker, which was away at that time.
create table syncsets.forgotten (
  controller text collate "C" primary key,
  at timestamptz not null default clock_timestamp()
);

-- Claims for a worker that was woken by messages: not the keys that these name but the most urgent ones, at most p_max. What is
-- urgent now was perhaps not there when the messages were sent, and a queue cannot be overtaken. The keys that were named and
-- that nobody has got are no longer on the queue: they are sent again.
create function syncsets.claim_instead(p_controller text, p_worker text, p_max integer, p_seconds integer, p_messages jsonb)
returns table (type text, namespace text, name text, uid uuid, attempts integer, reason text, nonce uuid, object text, age double precision)
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_rows tid[];
begin
  return query select c.* from syncsets.claim(p_controller, p_worker, p_max, p_seconds) c;
  select array_agg(l.row) into v_rows from jsonb_to_recordset(p_messages) as x(type text, namespace text, name text)
  cross join lateral (
    select w.ctid as row, w.state, w.sent_at from syncsets.work w
    where w.controller = p_controller and w.type = x.type and w.namespace = x.namespace and w.name = x.name
    offset 0 for update skip locked
  ) l
  where l.state = 'queued' and l.sent_at is not null;
  update syncsets.work w set sent_at = null where w.ctid = any (v_rows);
end
$$;

-- As before, and in fair order: a key that is queued again takes its namespace's turn. It went to the head of the line, so that a
-- namespace whose keys change all the time was served before the others.
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

-- As before, and in fair order: 100,000 keys of a namespace that are due together come one behind the other.
create or replace function syncsets.promote(p_limit integer) returns text[]
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_woken text[];
begin
  with due as materialized (
    -- as a sub-query: no index answers a comparison with a volatile clock, and all waiting keys would be looked at each second
    select w.ctid as row, w.controller, w.namespace, w.name, w.priority, w.not_before from syncsets.work w
    where w.state = 'waiting' and w.not_before <= (select clock_timestamp())
    order by w.not_before limit p_limit for update skip locked
  ), placed as (
    select d.*, row_number() over (partition by d.controller, d.priority, d.namespace order by d.not_before, d.name) as place from due d
  ), ranked as materialized (
    select p.row, p.controller, p.place + max(case when p.place = 1 then greatest(
        coalesce((select q.rank from syncsets.work q where q.controller = p.controller and q.state = 'queued'
          and q.priority = p.priority order by q.rank limit 1), 0),
        coalesce((select q.rank from syncsets.work q where q.controller = p.controller and q.state = 'queued'
          and q.priority = p.priority and q.namespace = p.namespace order by q.rank desc limit 1), 0)) end)
      over (partition by p.controller, p.priority, p.namespace) as rank
    from placed p
  ), promoted as (
    update syncsets.work w set state = 'queued', not_before = null, queued_at = clock_timestamp(), sent_at = null, rank = r.rank
    from ranked r where w.ctid = r.row
    returning w.controller
  )
  select coalesce(array_agg(distinct p.controller), '{}') into v_woken from promoted p;
  return v_woken;
end
$$;

-- Down Migration

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

create or replace function syncsets.promote(p_limit integer) returns text[]
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

drop function syncsets.claim_instead;
drop table syncsets.forgotten;
alter table syncsets.maps drop column claimed_at;
alter table syncsets.controllers drop column seen_at;
drop index syncsets.work_sent;
