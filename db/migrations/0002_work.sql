-- Up Migration

create table syncsets.controllers (
  name text collate "C" primary key,
  -- the type whose objects it reconciles, '*' for all
  type text collate "C" not null,
  -- which parts of a change make a key: spec, metadata, status, deletion
  interests text[] not null,
  watches text[] not null,
  claim_seconds integer not null,
  revision bigint not null,
  reveal text[] not null,
  long_running boolean not null,
  registered_at timestamptz not null default clock_timestamp()
);

-- A worker's lease holds all its claims: one row is renewed, not one per key.
create table syncsets.workers (
  controller text collate "C" not null references syncsets.controllers (name) on delete cascade,
  worker text collate "C" not null,
  expires_at timestamptz not null,
  primary key (controller, worker)
);
create index workers_expiry on syncsets.workers (expires_at);

create table syncsets.work (
  controller text collate "C" not null,
  type text collate "C" not null,
  namespace text collate "C" not null,
  name text collate "C" not null,
  uid uuid,
  version bigint,
  state text not null check (state in ('queued', 'claimed', 'waiting')),
  reason text not null,
  priority integer not null,
  -- place in the queue within a priority, see syncsets.enqueue
  rank bigint not null,
  attempts integer not null default 0,
  queued_at timestamptz not null default clock_timestamp(),
  -- when a waiting key is due; infinity: parked until its object changes
  not_before timestamptz,
  -- the key's message is on the controller's RabbitMQ queue since
  sent_at timestamptz,
  nonce uuid,
  worker text collate "C",
  claimed_at timestamptz,
  -- a change that arrived while the key was claimed: queue it again at done
  dirty boolean not null default false,
  dirty_priority integer not null default 0,
  last_error text,
  primary key (controller, type, namespace, name)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index work_queue on syncsets.work (controller, priority desc, rank) where state = 'queued';
create index work_fairness on syncsets.work (controller, priority, namespace, rank) where state = 'queued';
create index work_due on syncsets.work (not_before) where state = 'waiting';
create index work_claimed on syncsets.work (controller, worker) where state = 'claimed';

-- A secondary watch: how far the controller has mapped the events of a type to keys of its own.
create table syncsets.maps (
  controller text collate "C" not null references syncsets.controllers (name) on delete cascade,
  type text collate "C" not null,
  version bigint not null,
  nonce uuid,
  worker text collate "C",
  upto bigint,
  attempts integer not null default 0,
  not_before timestamptz not null default '-infinity',
  last_error text,
  primary key (controller, type)
);

-- How far the relay has come: work rows are made from Postgres alone, publishing has a cursor of its own.
create table syncsets.cursors (
  type text collate "C" primary key,
  work bigint not null default 0,
  published bigint not null default 0,
  -- counts the changes of who is registered for the type: keys computed from former registrations are not enqueued
  registrations bigint not null default 0
) with (fillfactor = 50);

-- Who leads what among the API replicas. Losing a lease is harmless: every step is a compare-and-set on a cursor or a row.
create table syncsets.leases (
  name text primary key,
  holder uuid not null,
  expires_at timestamptz not null
) with (fillfactor = 50);

-- Keys to reconcile, deduplicated: p_keys has columns controller, type, namespace, name, uid, version, priority, reason.
-- Rows are locked in key order, so that two of these never deadlock.
-- Fairness: within a priority each namespace's keys get consecutive ranks from the rank now being served, so a namespace
-- with 100,000 queued keys delays another one by a single key (start-time fair queueing).
create type syncsets.key as (
  controller text, type text, namespace text, name text, uid uuid, version bigint, priority integer, reason text
);
create function syncsets.enqueue(p_keys syncsets.key[], p_not_before timestamptz default null) returns text[]
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

-- Moves the work cursor of a type from one version to another and enqueues what the caller computed of the events between:
-- {controller, namespace, name, uid, version, priority, reason}. Null, and nothing is done, when cursor or registrations are
-- not those it was computed from.
create function syncsets.advance_work(p_type text, p_from bigint, p_to bigint, p_registrations bigint, p_keys jsonb) returns text[]
language plpgsql as $$
begin
  update syncsets.cursors c set work = p_to where c.type = p_type and c.work = p_from and c.registrations = p_registrations;
  if not found then return null; end if;
  if p_keys = '[]' then return '{}'; end if;
  return syncsets.enqueue(array(
    select row(k.controller, p_type, k.namespace, k.name, k.uid, k.version, k.priority, k.reason)::syncsets.key
    from jsonb_to_recordset(p_keys) as k(controller text, namespace text, name text, uid uuid, version bigint, priority integer, reason text)));
end
$$;

-- Moves the work cursor of a type over its newest events and makes their work rows, in one transaction.
-- Whoever calls it while another call is under way gets nothing: the cursor row's lock is the guard, no leader is needed
-- for correctness.
create function syncsets.relay_work(p_type text, p_limit integer)
returns table (events integer, upto bigint, woken text[])
language plpgsql as $$
declare
  v_cursor bigint;
  v_head bigint;
  v_log_start bigint;
  v_first bigint;
  v_upto bigint;
  v_count integer;
  v_keys syncsets.key[];
  v_woken text[];
begin
  select c.work into v_cursor from syncsets.cursors c where c.type = p_type for update skip locked;
  if not found then return; end if;
  select t.version, t.log_start into v_head, v_log_start from syncsets.types t where t.type = p_type;
  if v_head = v_cursor then return query select 0, v_cursor, '{}'::text[]; return; end if;

  with batch as materialized (
    select e.* from syncsets.events e where e.type = p_type and e.version > v_cursor order by e.version limit p_limit
  ), interested as (
    select c.name, c.interests from syncsets.controllers c where c.type = p_type or c.type = '*'
  )
  select (select count(*) from batch), (select min(b.previous) from batch b), (select max(b.version) from batch b),
    (select array_agg(row(i.name, b.type, b.namespace, b.name, b.uid, b.version,
        case when b.actor = 'client' then 10 else 0 end, lower(b.op))::syncsets.key)
      from batch b join interested i
        on (b.changed && i.interests) and not (b.own and b.actor = 'controller:' || i.name))
    into v_count, v_first, v_upto, v_keys;
  if v_upto is null or v_cursor < v_log_start or v_first > v_cursor then
    -- the log no longer holds what the cursor has not seen (its partition may go between two looks): everything is enqueued, below the priority of any change
    select array_agg(row(c.name, o.type, o.namespace, o.name, o.uid, o.version, -10, 'resync')::syncsets.key) into v_keys
      from syncsets.objects o join syncsets.controllers c on c.type = o.type or c.type = '*' where o.type = p_type;
    v_upto := v_head;
  end if;
  v_woken := case when v_keys is null then '{}' else syncsets.enqueue(v_keys) end;
  update syncsets.cursors c set work = v_upto where c.type = p_type;
  -- who maps this type to keys of its own has events to map now
  return query select v_count, v_upto, v_woken || array(select c.name from syncsets.controllers c where p_type = any (c.watches));
end
$$;

-- Down Migration

drop function syncsets.relay_work, syncsets.advance_work;
drop function syncsets.enqueue;
drop type syncsets.key;
drop table syncsets.leases, syncsets.cursors, syncsets.maps, syncsets.work, syncsets.workers, syncsets.controllers;
