-- Up Migration

-- Types of which a controller is to be given every object, and how far that is. The keys of the next ones are queued by a statement
-- of its own, so that neither a registration nor the events of the type wait for those of a million objects. See db/resync.ts.
create table syncsets.resyncs (
  controller text collate "C" not null references syncsets.controllers (name) on delete cascade,
  type text collate "C" not null,
  reason text not null,
  -- the object after which the next ones come
  namespace text collate "C" not null default '',
  name text collate "C" not null default '',
  -- whose turn was the longest ago is next
  turn_at timestamptz not null default clock_timestamp(),
  primary key (controller, type)
) with (fillfactor = 50);

-- Down Migration

drop table syncsets.resyncs;
