-- Endpoints and the tokens they enrol with.
CREATE TABLE endpoint_tokens (
    id UUID PRIMARY KEY,
    token_hash BYTEA NOT NULL UNIQUE,
    site_code TEXT NOT NULL,
    uses BIGINT NOT NULL,
    uses_left BIGINT NOT NULL,
    note TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Room on each page: last_seen_at changes often, and then needs no new index entry elsewhere.
CREATE TABLE endpoints (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT NOT NULL,
    findings JSONB NOT NULL,
    hello JSONB NOT NULL,
    hardware JSONB,
    vitals JSONB,
    network JSONB,
    skew_ms BIGINT,
    last_seen_at BIGINT,
    reported_at BIGINT,
    enrolled_at BIGINT NOT NULL,
    cert_not_after BIGINT NOT NULL,
    revoked_at BIGINT
) WITH (fillfactor = 70);
CREATE INDEX endpoints_site ON endpoints (site_code);
CREATE INDEX endpoints_state ON endpoints (state, last_seen_at);
CREATE INDEX endpoints_revoked ON endpoints (revoked_at);

CREATE TABLE endpoint_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX endpoint_events_endpoint ON endpoint_events (endpoint_id, id);
