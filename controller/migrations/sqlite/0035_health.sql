-- What endpoints report of their health: the latest state, what changed, and records of the last days.
CREATE TABLE endpoint_health (
    endpoint_id BLOB PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    -- The newest record in it: boot, sequence number, and when it was made by our clock.
    boot TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    gauges TEXT NOT NULL,
    inventory TEXT NOT NULL,
    probes TEXT NOT NULL,
    checks TEXT NOT NULL
) STRICT;

-- A check changed its mind. `arrived_at` is later than `at` for what was queued while the line was down.
CREATE TABLE endpoint_transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    arrived_at INTEGER NOT NULL,
    check_id TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    code TEXT NOT NULL,
    params TEXT NOT NULL
) STRICT;
CREATE INDEX endpoint_transitions_endpoint ON endpoint_transitions (endpoint_id, at);
CREATE INDEX endpoint_transitions_at ON endpoint_transitions (at);

-- Records as they came; the key is what tells a record that arrives twice.
CREATE TABLE endpoint_samples (
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    boot TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    arrived_at INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (endpoint_id, boot, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoint_samples_time ON endpoint_samples (endpoint_id, at);
CREATE INDEX endpoint_samples_arrived ON endpoint_samples (arrived_at);

-- Which endpoint probes for its site.
CREATE TABLE site_probers (
    site_code TEXT PRIMARY KEY,
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    since INTEGER NOT NULL
) STRICT;

-- Somebody looks at an endpoint until then.
CREATE TABLE endpoint_live (
    endpoint_id BLOB PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    until INTEGER NOT NULL
) STRICT;

-- What probers probe.
CREATE TABLE probe_services (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    path TEXT,
    expect TEXT,
    every_s INTEGER NOT NULL,
    budget_ms INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
