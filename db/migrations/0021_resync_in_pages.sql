-- Up Migration

-- As before; where the log has been cut it moves no cursor and answers null events: to enqueue every object in one statement took
-- longer than a statement may from some 100,000s of them on, and nothing went on. See db/resync.ts.
create or replace function syncsets.relay_work(p_type text, p_limit integer)
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
    -- the log no longer holds what the cursor has not seen (its partition may go between two looks)
    return query select null::integer, v_cursor, '{}'::text[];
    return;
  end if;
  v_woken := case when v_keys is null then '{}' else syncsets.enqueue(v_keys) end;
  update syncsets.cursors c set work = v_upto where c.type = p_type;
  -- who maps this type to keys of its own has events to map now
  return query select v_count, v_upto, v_woken || array(select c.name from syncsets.controllers c where p_type = any (c.watches));
end
$$;

-- Down Migration

create or replace function syncsets.relay_work(p_type text, p_limit integer)
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
