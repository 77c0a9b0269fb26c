-- Up Migration

-- Types of which a controller is to be given every object, and how far that is. The keys are queued page by page, so that neither a
-- registration nor the events of the type wait for those of a million objects. See db/resync.ts.
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

-- The release before enqueues all at once.
select syncsets.enqueue_objects(r.controller, r.type,
  array_agg(o.namespace order by o.namespace, o.name), array_agg(o.name order by o.namespace, o.name),
  array_agg(o.uid order by o.namespace, o.name), array_agg(o.version order by o.namespace, o.name), -10, r.reason)
from syncsets.resyncs r join syncsets.objects o on o.type = r.type and (o.namespace, o.name) > (r.namespace, r.name)
group by r.controller, r.type, r.reason;
drop table syncsets.resyncs;
