-- Somebody of support looks at an officer's session. All times are the database's own clock, so that no controller's
-- clock decides whether an answer came in time.
CREATE TABLE assists (
    id UUID PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    supporter_id UUID NOT NULL REFERENCES users (id),
    -- Hash of the sign-in cookie it was asked with: it lives no longer than that sign-in.
    sign_in BYTEA NOT NULL,
    reason TEXT NOT NULL,
    consent TEXT NOT NULL CHECK (consent IN ('none', 'notify', 'ask')),
    state TEXT NOT NULL CHECK (state IN ('asked', 'allowed', 'active', 'ended')),
    control TEXT NOT NULL CHECK (control IN ('none', 'asked', 'granted', 'refused')),
    asked_at BIGINT NOT NULL,
    -- When the state it is in runs out; and the officer's time to answer for control.
    due_at BIGINT NOT NULL,
    control_due_at BIGINT,
    began_at BIGINT,
    ended_at BIGINT,
    end_reason TEXT,
    ended_by TEXT,
    gateway_id UUID,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
    CHECK ((state = 'active') = (gateway_id IS NOT NULL)),
    CHECK ((control = 'asked') = (control_due_at IS NOT NULL))
);
CREATE UNIQUE INDEX assists_live ON assists (session_id) WHERE state <> 'ended';
CREATE INDEX assists_session ON assists (session_id, id);

-- What opens a second display. Of its own kind: no session's ticket is found here, and none of these among theirs.
CREATE TABLE assist_tickets (
    hash BYTEA PRIMARY KEY,
    assist_id UUID NOT NULL REFERENCES assists (id) ON DELETE CASCADE,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    redeemed_at BIGINT,
    revoked_at BIGINT,
    CHECK (expires_at > issued_at)
);
CREATE INDEX assist_tickets_assist ON assist_tickets (assist_id);
