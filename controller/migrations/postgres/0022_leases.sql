-- What lets an officer reach their desktop from one endpoint while the controller or this database can't be asked.
-- The endpoint holds the signed text; this row says whether it is still meant. Times are the database's own clock.
CREATE TABLE leases (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id),
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    desktop_id UUID NOT NULL,
    certificate BYTEA NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_why TEXT,
    CHECK (expires_at > issued_at),
    CHECK ((revoked_at IS NULL) = (revoked_why IS NULL))
);
-- Renewals of one session at one endpoint are one lease.
CREATE UNIQUE INDEX leases_place ON leases (session_id, endpoint_id);
CREATE INDEX leases_user ON leases (user_id);
CREATE INDEX leases_expires ON leases (expires_at);

-- The public halves of the keys that sign leases: all a gateway needs of them.
CREATE TABLE lease_keys (
    id TEXT PRIMARY KEY,
    public BYTEA NOT NULL,
    made_at BIGINT NOT NULL
);

-- What gateways did while the database was away, written down afterwards. An id is taken in once.
CREATE TABLE lease_events (
    id UUID PRIMARY KEY,
    at BIGINT NOT NULL
);

-- When a session was last entered by a lease while the database was away.
ALTER TABLE sessions ADD COLUMN leased_at BIGINT;
