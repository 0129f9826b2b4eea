-- What endpoints report of their health: the latest state, what changed, and records of the last days.
CREATE TABLE endpoint_health (
    endpoint_id UUID PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    -- The newest record in it: boot, sequence number, and when it was made by our clock.
    boot TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    gauges JSONB NOT NULL,
    inventory JSONB NOT NULL,
    probes JSONB NOT NULL,
    checks JSONB NOT NULL
);

-- A check changed its mind. `arrived_at` is later than `at` for what was queued while the line was down.
CREATE TABLE endpoint_transitions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    arrived_at BIGINT NOT NULL,
    check_id TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    code TEXT NOT NULL,
    params JSONB NOT NULL
);
CREATE INDEX endpoint_transitions_endpoint ON endpoint_transitions (endpoint_id, at);
CREATE INDEX endpoint_transitions_at ON endpoint_transitions (at);

-- Records as they came; the key is what tells a record that arrives twice.
CREATE TABLE endpoint_samples (
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    boot TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    arrived_at BIGINT NOT NULL,
    body JSONB NOT NULL,
    PRIMARY KEY (endpoint_id, boot, seq)
);
CREATE INDEX endpoint_samples_time ON endpoint_samples (endpoint_id, at);
CREATE INDEX endpoint_samples_arrived ON endpoint_samples (arrived_at);

-- Which endpoint probes for its site.
CREATE TABLE site_probers (
    site_code TEXT PRIMARY KEY,
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    since BIGINT NOT NULL
);

-- Somebody looks at an endpoint until then.
CREATE TABLE endpoint_live (
    endpoint_id UUID PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    until BIGINT NOT NULL
);

-- What probers probe.
CREATE TABLE probe_services (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    host TEXT NOT NULL,
    port BIGINT NOT NULL,
    path TEXT,
    expect TEXT,
    every_s BIGINT NOT NULL,
    budget_ms BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
