-- The broker: officers in line, what a ticket is bound to and may open, how long sessions may last, how they felt.
-- Tickets live for seconds: the table is made anew rather than changed.
DROP TABLE tickets;

ALTER TABLE sessions DROP CONSTRAINT sessions_state_check;
ALTER TABLE sessions
    ADD CONSTRAINT sessions_state_check
        CHECK (state IN ('waiting', 'starting', 'ready', 'active', 'disconnected', 'ended')),
    -- In line: since when (the database's clock), and for desktops of which sites; NULL: of all.
    ADD COLUMN queued_at BIGINT,
    ADD COLUMN queue_scope JSONB,
    -- When it got its desktop.
    ADD COLUMN assigned_at BIGINT,
    -- What it may do and for how long, as it was when it got its desktop.
    ADD COLUMN policy JSONB NOT NULL DEFAULT '{}',
    -- Where it was last opened: what coming back is compared with.
    ADD COLUMN holder_kind TEXT CHECK (holder_kind IN ('browser', 'endpoint')),
    ADD COLUMN holder BYTEA,
    ADD COLUMN holder_endpoint UUID,
    -- The officer's latest word that they are still there, and the limit that is near.
    ADD COLUMN present_at BIGINT,
    ADD COLUMN closing_at BIGINT,
    ADD COLUMN closing_why TEXT,
    ADD COLUMN ended_by TEXT,
    ADD COLUMN end_note TEXT,
    ADD COLUMN experience JSONB,
    ADD CONSTRAINT sessions_waiting_check CHECK (state <> 'waiting' OR (queued_at IS NOT NULL AND desktop_id IS NULL));
CREATE INDEX sessions_line ON sessions (queued_at, id) WHERE state = 'waiting';

-- Ticket times are the database's own clock, so that no controller's clock matters.
CREATE TABLE tickets (
    hash BYTEA PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id UUID NOT NULL REFERENCES users (id),
    desktop_id UUID NOT NULL,
    -- Who may redeem it: hash of a browser's sign-in cookie, or of an endpoint's certificate.
    binding_kind TEXT NOT NULL CHECK (binding_kind IN ('browser', 'endpoint')),
    binding BYTEA NOT NULL,
    endpoint_id UUID,
    -- What it opens, such as `vnc,spice`.
    protocols TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    redeemed_at BIGINT,
    revoked_at BIGINT,
    CHECK (expires_at > issued_at),
    CHECK ((binding_kind = 'endpoint') = (endpoint_id IS NOT NULL))
);
CREATE INDEX tickets_session ON tickets (session_id);
CREATE INDEX tickets_expiry ON tickets (expires_at);

-- A pool's own limits; what it leaves out is as configured.
ALTER TABLE pools ADD COLUMN policy JSONB NOT NULL DEFAULT '{}';

-- Tells a browser that comes back from another one; opens nothing.
ALTER TABLE web_sessions ADD COLUMN browser BYTEA;
