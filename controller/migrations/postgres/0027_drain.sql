-- A host that is being emptied: what nobody uses is made anew on other hosts.
ALTER TABLE hosts ADD COLUMN draining BOOLEAN NOT NULL DEFAULT FALSE;
