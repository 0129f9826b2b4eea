-- A host that is being emptied: what nobody uses is made anew on other hosts.
ALTER TABLE hosts ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
