-- The broker: officers in line, what a ticket is bound to and may open, how long sessions may last, how they felt.
-- Tickets live for seconds: the table is made anew rather than changed.
DROP TABLE tickets;

-- SQLite can't change a CHECK: the table is copied.
CREATE TABLE sessions_new (
    id BLOB PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id),
    desktop_id BLOB REFERENCES desktops (id) ON DELETE SET NULL,
    -- Kept beside the reference: a session's history outlives its desktop.
    desktop_name TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'starting', 'ready', 'active', 'disconnected', 'ended')),
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
    -- In line: since when (the database's clock), and for desktops of which sites; NULL: of all.
    queued_at INTEGER,
    queue_scope TEXT,
    -- When it got its desktop.
    assigned_at INTEGER,
    -- What it may do and for how long, as it was when it got its desktop.
    policy TEXT NOT NULL DEFAULT '{}',
    -- Where it was last opened: what coming back is compared with.
    holder_kind TEXT CHECK (holder_kind IN ('browser', 'endpoint')),
    holder BLOB,
    holder_endpoint BLOB,
    -- The officer's latest word that they are still there, and the limit that is near.
    present_at INTEGER,
    closing_at INTEGER,
    closing_why TEXT,
    ended_by TEXT,
    end_note TEXT,
    experience TEXT,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
    CHECK ((state = 'active') = (gateway_id IS NOT NULL)),
    CHECK (state <> 'waiting' OR (queued_at IS NOT NULL AND desktop_id IS NULL))
) STRICT;
INSERT INTO sessions_new (id, user_id, desktop_id, desktop_name, site_code, state, created_at, last_active_at, first_frame_at,
        disconnected_at, ended_at, end_reason, resumes, bytes_up, bytes_down, epoch, gateway_id, client_ip)
    SELECT id, user_id, desktop_id, desktop_name, site_code, state, created_at, last_active_at, first_frame_at,
        disconnected_at, ended_at, end_reason, resumes, bytes_up, bytes_down, epoch, gateway_id, client_ip FROM sessions;
DROP TABLE sessions;
ALTER TABLE sessions_new RENAME TO sessions;
CREATE UNIQUE INDEX sessions_live_user ON sessions (user_id) WHERE state <> 'ended';
CREATE UNIQUE INDEX sessions_live_desktop ON sessions (desktop_id) WHERE state <> 'ended';
CREATE INDEX sessions_state ON sessions (state);
CREATE INDEX sessions_line ON sessions (queued_at, id) WHERE state = 'waiting';

-- Ticket times are the database's own clock, so that no controller's clock matters.
CREATE TABLE tickets (
    hash BLOB PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id BLOB NOT NULL REFERENCES users (id),
    desktop_id BLOB NOT NULL,
    -- Who may redeem it: hash of a browser's sign-in cookie, or of an endpoint's certificate.
    binding_kind TEXT NOT NULL CHECK (binding_kind IN ('browser', 'endpoint')),
    binding BLOB NOT NULL,
    endpoint_id BLOB,
    -- What it opens, such as `vnc,spice`.
    protocols TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    redeemed_at INTEGER,
    revoked_at INTEGER,
    CHECK (expires_at > issued_at),
    CHECK ((binding_kind = 'endpoint') = (endpoint_id IS NOT NULL))
) STRICT;
CREATE INDEX tickets_session ON tickets (session_id);
CREATE INDEX tickets_expiry ON tickets (expires_at);

-- A pool's own limits; what it leaves out is as configured.
ALTER TABLE pools ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';

-- Tells a browser that comes back from another one; opens nothing.
ALTER TABLE web_sessions ADD COLUMN browser BLOB;
