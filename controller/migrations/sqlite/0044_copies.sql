-- Copies of endpoints: what tells that a key is shown by more than one computer, and what was decided about it.
ALTER TABLE endpoints ADD COLUMN quarantined_at INTEGER;
-- Why: signals, who was known and who came, side by side.
ALTER TABLE endpoints ADD COLUMN suspicion TEXT;
-- When quarantine last began or ended, or a copy was decided: links older than that begin anew.
ALTER TABLE endpoints ADD COLUMN settled_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX endpoints_settled ON endpoints (settled_at);

-- Who showed the identity last, to compare the next one with. A table of its own: it changes with every link.
CREATE TABLE endpoint_known (
    endpoint_id BLOB PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    known TEXT NOT NULL
) STRICT;

-- Computers that show a quarantined identity.
CREATE TABLE endpoint_copies (
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    copy TEXT NOT NULL,
    claim TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    reports INTEGER NOT NULL,
    report TEXT,
    -- The endpoint it is instead, once somebody said so.
    became BLOB REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (endpoint_id, copy)
) STRICT, WITHOUT ROWID;
