-- Up Migration

-- The work of a controller is counted for people and metrics: from these indexes alone, up to a bound.
create index work_waiting on syncsets.work (controller) where state = 'waiting';
create index work_failing on syncsets.work (controller) where state = 'waiting' and last_error is not null;
create index work_age on syncsets.work (controller, queued_at) where state = 'queued';

-- Down Migration

drop index syncsets.work_waiting, syncsets.work_failing, syncsets.work_age;
