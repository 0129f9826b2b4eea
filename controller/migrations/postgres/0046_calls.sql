-- Officers who called support from their computer. One row a call.
CREATE TABLE support_calls (
    id UUID PRIMARY KEY,
    endpoint_id UUID NOT NULL REFERENCES endpoints (id),
    -- The computer's own id of it; absent: support opened it by its code before it arrived.
    desk_id UUID UNIQUE,
    number BIGINT NOT NULL,
    code TEXT NOT NULL,
    site_code TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'taken', 'handed_over', 'solved', 'closed')),
    -- The session the officer was in, by what the computer says.
    session_id UUID,
    snapshot JSONB,
    -- By the computer's own clock.
    made_at BIGINT,
    arrived_at BIGINT,
    opened_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    taken_by TEXT,
    taken_name TEXT,
    party TEXT,
    answer_by BIGINT,
    over_at BIGINT,
    incident_id UUID REFERENCES incidents (id) ON DELETE SET NULL,
    -- Whoever wants to know was told.
    told BOOLEAN NOT NULL,
    CHECK ((desk_id IS NULL) = (arrived_at IS NULL)),
    CHECK ((state IN ('solved', 'closed')) = (over_at IS NOT NULL))
);
CREATE INDEX support_calls_code ON support_calls (code);
CREATE INDEX support_calls_endpoint ON support_calls (endpoint_id, number);
CREATE INDEX support_calls_opened ON support_calls (opened_at);
CREATE INDEX support_calls_untold ON support_calls (told) WHERE NOT told;

CREATE TABLE support_call_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call_id UUID NOT NULL REFERENCES support_calls (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail JSONB NOT NULL
);
CREATE INDEX support_call_events_call ON support_call_events (call_id, id);
