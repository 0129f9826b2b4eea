-- Who wants to be told of incidents, and what is on its way to them.
CREATE TABLE notify_rules (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    enabled BOOLEAN NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('email', 'sms', 'webhook')),
    target TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('warn', 'crit')),
    -- Names of causes; empty: all.
    causes JSONB NOT NULL,
    -- Everything below this site; absent: everywhere.
    site_code TEXT,
    at_times TEXT NOT NULL CHECK (at_times IN ('always', 'office', 'on_call')),
    ends BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE notify_outbox (
    id UUID PRIMARY KEY,
    rule_id UUID NOT NULL REFERENCES notify_rules (id) ON DELETE CASCADE,
    incident_id UUID REFERENCES incidents (id) ON DELETE CASCADE,
    occasion TEXT NOT NULL,
    -- Tells two of one occasion apart, such as the cause that was found.
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Until office hours begin, or until the next try. Absent: nothing more will be tried.
    due_at BIGINT,
    attempts BIGINT NOT NULL,
    sent_at BIGINT,
    error TEXT,
    CHECK (sent_at IS NULL OR due_at IS NULL)
);
CREATE UNIQUE INDEX notify_outbox_once ON notify_outbox (rule_id, incident_id, occasion, detail) WHERE incident_id IS NOT NULL;
CREATE INDEX notify_outbox_due ON notify_outbox (due_at) WHERE due_at IS NOT NULL;
