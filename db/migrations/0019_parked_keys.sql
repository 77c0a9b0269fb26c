-- Up Migration

-- Keys that a terminal error has parked (due at infinity) are counted apart from those that fail and are tried again.
drop index syncsets.work_failing;
create index work_failing on syncsets.work (controller)
  where state = 'waiting' and last_error is not null and not_before < 'infinity';
create index work_parked on syncsets.work (controller) where state = 'waiting' and not_before = 'infinity';

-- Down Migration

drop index syncsets.work_failing, syncsets.work_parked;
create index work_failing on syncsets.work (controller) where state = 'waiting' and last_error is not null;
