-- Up Migration

-- One row per type. `version` is the resourceVersion of the type's newest event: it is taken under this row's lock, which
-- is held until commit, so versions become visible in commit order and a reader of `version > n` misses nothing.
-- `log_start`: events with a version above it are still kept.
create table syncsets.types (
  type text collate "C" primary key,
  namespaced boolean not null,
  version bigint not null default 0,
  log_start bigint not null default 0,
  keep_events interval not null default '24 hours'
) with (fillfactor = 50);

create table syncsets.objects (
  type text collate "C" not null,
  namespace text collate "C" not null,
  name text collate "C" not null,
  uid uuid not null,
  version bigint not null,
  labels jsonb not null,
  -- the object as clients see it: secret values are masked, so nothing that reads this column can leak one
  object jsonb not null,
  -- ciphertexts and equality tags of the secret fields, see api/secrets.ts
  sealed jsonb,
  primary key (type, namespace, name)
) partition by list (type);
-- fastupdate off: the pending list of a GIN index is flushed in the foreground of some unlucky write (46-246 ms seen)
create index objects_labels on syncsets.objects using gin (labels jsonb_path_ops) with (fastupdate = off);

-- The event log: by type, then by hour of writing, so that old events leave by dropping a partition.
create table syncsets.events (
  type text collate "C" not null,
  version bigint not null,
  previous bigint not null,
  at timestamptz not null,
  op text not null check (op in ('ADDED', 'MODIFIED', 'DELETED')),
  namespace text collate "C" not null,
  name text collate "C" not null,
  uid uuid not null,
  labels jsonb not null,
  object jsonb not null,
  -- top-level fields that changed, with their old values (null: the field was absent): object || before = state before
  before jsonb,
  changed text[] not null,
  -- 'client' or 'controller:<name>'; own: the write carried that controller's claim for this very key
  actor text not null,
  own boolean not null,
  traceparent text,
  primary key (type, version, at)
) partition by list (type);

-- Keys of the platform itself, encrypted with ENCRYPTION_KEY.
create table syncsets.keys (
  purpose text primary key,
  key_id text not null,
  wrapped text not null
);

create table syncsets.notices (
  type text collate "C" not null,
  namespace text collate "C" not null,
  name text collate "C" not null,
  actor text not null,
  reason text not null,
  message text not null,
  count integer not null default 1,
  first_at timestamptz not null default clock_timestamp(),
  last_at timestamptz not null default clock_timestamp()
);
-- By digest: a row of an index holds 2.7 kB at most, a message more.
create unique index notices_key on syncsets.notices (type, namespace, name, actor, reason, md5(message));
create index notices_age on syncsets.notices (last_at);

create function syncsets.rfc3339(moment timestamptz) returns text language sql immutable parallel safe as $$
  select to_char(moment at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- Down Migration

drop function syncsets.rfc3339;
drop table syncsets.notices, syncsets.keys, syncsets.events, syncsets.objects, syncsets.types;
