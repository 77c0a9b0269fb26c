-- Up Migration

-- After a restored backup: makes the versions of all types go on `p_by` above what is stored, so that none that clients have
-- seen of the lost state is given again, and voids all claims. The log begins anew there: whoever knows any version before it
-- lists again, the relay enqueues everything. Counter rows first, then work, as everywhere.
create function syncsets.raise_versions(p_by bigint) returns table (type text, former bigint, version bigint)
language plpgsql as $$
begin
  perform from syncsets.types t order by t.type for update;
  return query
  update syncsets.types t set version = t.version + p_by, log_start = t.version + p_by
  returning t.type, t.version - p_by, t.version;
  -- What was not published before goes out still; where all was, nothing is left to wait for.
  update syncsets.cursors c set published = t.version from syncsets.types t
    where t.type = c.type and c.published = t.version - p_by;
  -- Leases that have run out: their workers learn of it at the next renewal, and what they hold is queued.
  perform from syncsets.workers k order by k.controller, k.worker for update;
  update syncsets.workers k set expires_at = '-infinity';
  perform syncsets.expire_workers();
  -- Messages that are out belong to the lost state too.
  perform from syncsets.work w where w.sent_at is not null order by w.controller, w.type, w.namespace, w.name for update;
  update syncsets.work w set sent_at = null where w.sent_at is not null;
end
$$;

-- Down Migration

drop function syncsets.raise_versions;
