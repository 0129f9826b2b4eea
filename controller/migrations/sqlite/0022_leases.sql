-- What lets an officer reach their desktop from one endpoint while the controller or this database can't be asked.
-- The endpoint holds the signed text; this row says whether it is still meant. Times are the database's own clock.
CREATE TABLE leases (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id),
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    session_id BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    desktop_id BLOB NOT NULL,
    certificate BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_why TEXT,
    CHECK (expires_at > issued_at),
    CHECK ((revoked_at IS NULL) = (revoked_why IS NULL))
) STRICT;
-- Renewals of one session at one endpoint are one lease.
CREATE UNIQUE INDEX leases_place ON leases (session_id, endpoint_id);
CREATE INDEX leases_user ON leases (user_id);
CREATE INDEX leases_expires ON leases (expires_at);

-- The public halves of the keys that sign leases: all a gateway needs of them.
CREATE TABLE lease_keys (
    id TEXT PRIMARY KEY,
    public BLOB NOT NULL,
    made_at INTEGER NOT NULL
) STRICT;

-- What gateways did while the database was away, written down afterwards. An id is taken in once.
CREATE TABLE lease_events (
    id BLOB PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;

-- When a session was last entered by a lease while the database was away.
ALTER TABLE sessions ADD COLUMN leased_at INTEGER;
