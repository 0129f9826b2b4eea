-- How a token lets computers in, and the serial numbers it still expects.
ALTER TABLE endpoint_tokens ADD COLUMN approval TEXT NOT NULL DEFAULT 'auto';
ALTER TABLE endpoint_tokens ADD COLUMN serials JSONB NOT NULL DEFAULT '[]';

-- Computers that asked to be approved. The id is the endpoint's, once it comes for its certificate.
CREATE TABLE enrolments (
    id UUID PRIMARY KEY,
    token_id UUID NOT NULL REFERENCES endpoint_tokens (id) ON DELETE CASCADE,
    -- SHA-256 of the public key: who asks again.
    key_hash BYTEA NOT NULL,
    site_code TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    -- Six digits that stand on both screens.
    digits TEXT NOT NULL,
    hello JSONB NOT NULL,
    hardware JSONB,
    marks JSONB NOT NULL,
    address TEXT NOT NULL,
    -- The serial numbers the token expected when this computer asked.
    expected JSONB NOT NULL,
    asked_at BIGINT NOT NULL,
    heard_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    decided_at BIGINT,
    decided_by TEXT,
    reason TEXT NOT NULL DEFAULT '',
    collected_at BIGINT,
    UNIQUE (token_id, key_hash)
);
CREATE INDEX enrolments_state ON enrolments (state, expires_at);
-- Nobody may read out the digits of another computer that waits.
CREATE UNIQUE INDEX enrolments_digits ON enrolments (digits) WHERE state = 'pending';
