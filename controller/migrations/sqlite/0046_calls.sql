-- Officers who called support from their computer. One row a call.
CREATE TABLE support_calls (
    id BLOB PRIMARY KEY,
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id),
    -- The computer's own id of it; absent: support opened it by its code before it arrived.
    desk_id BLOB UNIQUE,
    number INTEGER NOT NULL,
    code TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'taken', 'handed_over', 'solved', 'closed')),
    -- The session the officer was in, by what the computer says.
    session_id BLOB,
    snapshot TEXT,
    -- By the computer's own clock.
    made_at INTEGER,
    arrived_at INTEGER,
    opened_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    taken_by TEXT,
    taken_name TEXT,
    party TEXT,
    answer_by INTEGER,
    over_at INTEGER,
    incident_id BLOB REFERENCES incidents (id) ON DELETE SET NULL,
    -- Whoever wants to know was told.
    told INTEGER NOT NULL,
    CHECK ((desk_id IS NULL) = (arrived_at IS NULL)),
    CHECK ((state IN ('solved', 'closed')) = (over_at IS NOT NULL))
) STRICT;
CREATE INDEX support_calls_code ON support_calls (code);
CREATE INDEX support_calls_endpoint ON support_calls (endpoint_id, number);
CREATE INDEX support_calls_opened ON support_calls (opened_at);
CREATE INDEX support_calls_untold ON support_calls (told) WHERE NOT told;

CREATE TABLE support_call_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    call_id BLOB NOT NULL REFERENCES support_calls (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX support_call_events_call ON support_call_events (call_id, id);
