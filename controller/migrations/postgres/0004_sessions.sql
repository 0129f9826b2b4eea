-- Sessions of officers, the tickets that open their displays, and the gateways that carry them.
CREATE TABLE sessions (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id),
    desktop_id UUID REFERENCES desktops (id) ON DELETE SET NULL,
    -- Kept beside the reference: a session's history outlives its desktop.
    desktop_name TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'active', 'disconnected', 'ended')),
    created_at BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL,
    first_frame_at BIGINT,
    disconnected_at BIGINT,
    ended_at BIGINT,
    end_reason TEXT,
    resumes BIGINT NOT NULL CHECK (resumes >= 0),
    bytes_up BIGINT NOT NULL CHECK (bytes_up >= 0),
    bytes_down BIGINT NOT NULL CHECK (bytes_down >= 0),
    -- Counts connections: a writer with an older epoch must stop.
    epoch BIGINT NOT NULL CHECK (epoch >= 0),
    gateway_id UUID,
    client_ip TEXT NOT NULL,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
    CHECK ((state = 'active') = (gateway_id IS NOT NULL))
);
CREATE UNIQUE INDEX sessions_live_user ON sessions (user_id) WHERE state <> 'ended';
CREATE UNIQUE INDEX sessions_live_desktop ON sessions (desktop_id) WHERE state <> 'ended';
CREATE INDEX sessions_state ON sessions (state);

-- Ticket times are the database's own clock, so that no controller's clock matters.
CREATE TABLE tickets (
    hash BYTEA PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id UUID NOT NULL REFERENCES users (id),
    desktop_id UUID NOT NULL,
    -- Hash of the browser's sign-in cookie; NULL: bound to none.
    binding BYTEA,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    redeemed_at BIGINT,
    revoked_at BIGINT,
    CHECK (expires_at > issued_at)
);
CREATE INDEX tickets_session ON tickets (session_id);
CREATE INDEX tickets_expiry ON tickets (expires_at);

-- Processes that carry display traffic; one that falls silent loses its connections.
CREATE TABLE gateways (
    id UUID PRIMARY KEY,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
