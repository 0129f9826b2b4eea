-- Endpoints and the tokens they enrol with.
CREATE TABLE endpoint_tokens (
    id BLOB PRIMARY KEY,
    token_hash BLOB NOT NULL UNIQUE,
    site_code TEXT NOT NULL,
    uses INTEGER NOT NULL,
    uses_left INTEGER NOT NULL,
    note TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE endpoints (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT NOT NULL,
    findings TEXT NOT NULL,
    hello TEXT NOT NULL,
    hardware TEXT,
    vitals TEXT,
    network TEXT,
    skew_ms INTEGER,
    last_seen_at INTEGER,
    reported_at INTEGER,
    enrolled_at INTEGER NOT NULL,
    cert_not_after INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX endpoints_site ON endpoints (site_code);
CREATE INDEX endpoints_state ON endpoints (state, last_seen_at);
CREATE INDEX endpoints_revoked ON endpoints (revoked_at);

CREATE TABLE endpoint_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX endpoint_events_endpoint ON endpoint_events (endpoint_id, id);
