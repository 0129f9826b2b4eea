-- Copies of endpoints: what tells that a key is shown by more than one computer, and what was decided about it.
ALTER TABLE endpoints ADD COLUMN quarantined_at BIGINT;
-- Why: signals, who was known and who came, side by side.
ALTER TABLE endpoints ADD COLUMN suspicion JSONB;
-- When quarantine last began or ended, or a copy was decided: links older than that begin anew.
ALTER TABLE endpoints ADD COLUMN settled_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX endpoints_settled ON endpoints (settled_at);

-- Who showed the identity last, to compare the next one with. A table of its own: it changes with every link.
CREATE TABLE endpoint_known (
    endpoint_id UUID PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    known JSONB NOT NULL
);

-- Computers that show a quarantined identity.
CREATE TABLE endpoint_copies (
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    copy TEXT NOT NULL,
    claim JSONB NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    reports BIGINT NOT NULL,
    report JSONB,
    -- The endpoint it is instead, once somebody said so.
    became UUID REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (endpoint_id, copy)
);
