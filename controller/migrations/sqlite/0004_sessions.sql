-- Sessions of officers, the tickets that open their displays, and the gateways that carry them.
CREATE TABLE sessions (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id),
    desktop_id BLOB REFERENCES desktops (id) ON DELETE SET NULL,
    -- Kept beside the reference: a session's history outlives its desktop.
    desktop_name TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'active', 'disconnected', 'ended')),
    created_at INTEGER NOT NULL,
    last_active_at INTEGER NOT NULL,
    first_frame_at INTEGER,
    disconnected_at INTEGER,
    ended_at INTEGER,
    end_reason TEXT,
    resumes INTEGER NOT NULL CHECK (resumes >= 0),
    bytes_up INTEGER NOT NULL CHECK (bytes_up >= 0),
    bytes_down INTEGER NOT NULL CHECK (bytes_down >= 0),
    -- Counts connections: a writer with an older epoch must stop.
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    gateway_id BLOB,
    client_ip TEXT NOT NULL,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
    CHECK ((state = 'active') = (gateway_id IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX sessions_live_user ON sessions (user_id) WHERE state <> 'ended';
CREATE UNIQUE INDEX sessions_live_desktop ON sessions (desktop_id) WHERE state <> 'ended';
CREATE INDEX sessions_state ON sessions (state);

-- Ticket times are the database's own clock, so that no controller's clock matters.
CREATE TABLE tickets (
    hash BLOB PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id BLOB NOT NULL REFERENCES users (id),
    desktop_id BLOB NOT NULL,
    -- Hash of the browser's sign-in cookie; NULL: bound to none.
    binding BLOB,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    redeemed_at INTEGER,
    revoked_at INTEGER,
    CHECK (expires_at > issued_at)
) STRICT;
CREATE INDEX tickets_session ON tickets (session_id);
CREATE INDEX tickets_expiry ON tickets (expires_at);

-- Processes that carry display traffic; one that falls silent loses its connections.
CREATE TABLE gateways (
    id BLOB PRIMARY KEY,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;
