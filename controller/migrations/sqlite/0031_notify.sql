-- Who wants to be told of incidents, and what is on its way to them.
CREATE TABLE notify_rules (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    enabled INTEGER NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('email', 'sms', 'webhook')),
    target TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('warn', 'crit')),
    -- Names of causes; empty: all.
    causes TEXT NOT NULL,
    -- Everything below this site; absent: everywhere.
    site_code TEXT,
    at_times TEXT NOT NULL CHECK (at_times IN ('always', 'office', 'on_call')),
    ends INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE notify_outbox (
    id BLOB PRIMARY KEY,
    rule_id BLOB NOT NULL REFERENCES notify_rules (id) ON DELETE CASCADE,
    incident_id BLOB REFERENCES incidents (id) ON DELETE CASCADE,
    occasion TEXT NOT NULL,
    -- Tells two of one occasion apart, such as the cause that was found.
    detail TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- Until office hours begin, or until the next try. Absent: nothing more will be tried.
    due_at INTEGER,
    attempts INTEGER NOT NULL,
    sent_at INTEGER,
    error TEXT,
    CHECK (sent_at IS NULL OR due_at IS NULL)
) STRICT;
CREATE UNIQUE INDEX notify_outbox_once ON notify_outbox (rule_id, incident_id, occasion, detail) WHERE incident_id IS NOT NULL;
CREATE INDEX notify_outbox_due ON notify_outbox (due_at) WHERE due_at IS NOT NULL;
