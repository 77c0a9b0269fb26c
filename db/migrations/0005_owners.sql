-- Up Migration

-- What the owners of an object are found by: their uids and names in one array, so that one scan of one index answers for
-- many owners at once (?|). Objects without owners are not in the index: at a million objects it is as small as their number.
create function syncsets.owner_keys(object jsonb) returns jsonb language sql immutable parallel safe as $$
  select jsonb_path_query_array(object, '$.owners[*].uid') || jsonb_path_query_array(object, '$.owners[*].name')
$$;
create index objects_owners on syncsets.objects using gin (syncsets.owner_keys(object)) with (fastupdate = off)
  where object ? 'owners';

-- The work of a controller is counted for people and metrics: from these indexes alone, up to a bound.
create index work_waiting on syncsets.work (controller) where state = 'waiting';
create index work_failing on syncsets.work (controller) where state = 'waiting' and last_error is not null;
create index work_age on syncsets.work (controller, queued_at) where state = 'queued';

-- Down Migration

drop index syncsets.objects_owners;
drop function syncsets.owner_keys;
drop index syncsets.work_waiting, syncsets.work_failing, syncsets.work_age;
