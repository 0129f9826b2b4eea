-- Somebody of support looks at an officer's session. All times are the database's own clock, so that no controller's
-- clock decides whether an answer came in time.
CREATE TABLE assists (
    id BLOB PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    supporter_id BLOB NOT NULL REFERENCES users (id),
    -- Hash of the sign-in cookie it was asked with: it lives no longer than that sign-in.
    sign_in BLOB NOT NULL,
    reason TEXT NOT NULL,
    consent TEXT NOT NULL CHECK (consent IN ('none', 'notify', 'ask')),
    state TEXT NOT NULL CHECK (state IN ('asked', 'allowed', 'active', 'ended')),
    control TEXT NOT NULL CHECK (control IN ('none', 'asked', 'granted', 'refused')),
    asked_at INTEGER NOT NULL,
    -- When the state it is in runs out; and the officer's time to answer for control.
    due_at INTEGER NOT NULL,
    control_due_at INTEGER,
    began_at INTEGER,
    ended_at INTEGER,
    end_reason TEXT,
    ended_by TEXT,
    gateway_id BLOB,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
    CHECK ((state = 'active') = (gateway_id IS NOT NULL)),
    CHECK ((control = 'asked') = (control_due_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX assists_live ON assists (session_id) WHERE state <> 'ended';
CREATE INDEX assists_session ON assists (session_id, id);

-- What opens a second display. Of its own kind: no session's ticket is found here, and none of these among theirs.
CREATE TABLE assist_tickets (
    hash BLOB PRIMARY KEY,
    assist_id BLOB NOT NULL REFERENCES assists (id) ON DELETE CASCADE,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    redeemed_at INTEGER,
    revoked_at INTEGER,
    CHECK (expires_at > issued_at)
) STRICT;
CREATE INDEX assist_tickets_assist ON assist_tickets (assist_id);
