-- Up Migration

-- As before; what it returns counts the maps that are free again as well as the keys, so that somebody is woken for a map alone.
create or replace function syncsets.release_worker(p_controller text, p_worker text, p_reason text) returns integer
language plpgsql set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  v_rows tid[];
  v_maps integer;
  v_keys integer;
begin
  -- Maps first: the end of a map locks its row and then the keys that it enqueues.
  update syncsets.maps m set nonce = null, worker = null, upto = null where m.controller = p_controller and m.worker = p_worker;
  get diagnostics v_maps = row_count;
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
  get diagnostics v_keys = row_count;
  return v_maps + v_keys;
end
$$;

-- Down Migration

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
