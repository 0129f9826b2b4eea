-- What is wrong and why. One row an incident; what is still open has its key once.
CREATE TABLE incidents (
    id UUID PRIMARY KEY,
    key TEXT NOT NULL,
    cause TEXT NOT NULL,
    -- The cause as it was judged first: what was known then.
    first_cause TEXT NOT NULL,
    scope TEXT NOT NULL,
    detail TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('warn', 'crit')),
    confidence TEXT NOT NULL CHECK (confidence IN ('low', 'medium', 'high')),
    evidence JSONB NOT NULL,
    doubts JSONB NOT NULL,
    endpoints JSONB NOT NULL,
    party TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'over')),
    flapping BOOLEAN NOT NULL,
    opened_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    over_at BIGINT,
    -- The incident that explains this one.
    merged_into UUID REFERENCES incidents (id),
    acknowledged_by TEXT,
    acknowledged_at BIGINT,
    -- Handed to its party, and until when they should answer.
    handed_by TEXT,
    handed_at BIGINT,
    answer_by BIGINT,
    CHECK ((state = 'over') = (over_at IS NOT NULL))
);
CREATE UNIQUE INDEX incidents_open ON incidents (key) WHERE state = 'open';
CREATE INDEX incidents_opened ON incidents (opened_at);

CREATE TABLE incident_sites (
    incident_id UUID NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    site_code TEXT NOT NULL,
    PRIMARY KEY (incident_id, site_code)
);
CREATE INDEX incident_sites_site ON incident_sites (site_code);

CREATE TABLE incident_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id UUID NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail JSONB NOT NULL
);
CREATE INDEX incident_events_incident ON incident_events (incident_id, id);

-- The course of each possible incident: what damps it outlives a restart.
CREATE TABLE incident_courses (
    key TEXT PRIMARY KEY,
    severity TEXT NOT NULL,
    course JSONB NOT NULL
);

-- What a site is besides its name: whose line, and work that was announced.
CREATE TABLE site_facts (
    site_code TEXT PRIMARY KEY,
    carrier TEXT,
    maintenance_until BIGINT,
    maintenance_reason TEXT NOT NULL
);

-- Days that are not as their weekday.
CREATE TABLE calendar_days (
    day TEXT PRIMARY KEY,
    working BOOLEAN NOT NULL,
    name TEXT NOT NULL
);
