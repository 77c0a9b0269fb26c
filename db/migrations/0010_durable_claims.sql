-- Up Migration

-- A claim that its worker knows of and a crash of the database forgets would be handed to a second worker while the first one
-- works. So claims wait for the disk, whatever the functions set inside: a setting of the function is put back when it returns,
-- before the commit. Results still do not wait: one that is lost makes its key run once more.
alter function syncsets.claim(text, text, integer, integer, jsonb) set synchronous_commit = on;
alter function syncsets.claim_instead(text, text, integer, integer, jsonb) set synchronous_commit = on;

-- Down Migration

alter function syncsets.claim_instead(text, text, integer, integer, jsonb) reset synchronous_commit;
alter function syncsets.claim(text, text, integer, integer, jsonb) reset synchronous_commit;
