-- What is wrong and why. One row an incident; what is still open has its key once.
CREATE TABLE incidents (
    id BLOB PRIMARY KEY,
    key TEXT NOT NULL,
    cause TEXT NOT NULL,
    -- The cause as it was judged first: what was known then.
    first_cause TEXT NOT NULL,
    scope TEXT NOT NULL,
    detail TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('warn', 'crit')),
    confidence TEXT NOT NULL CHECK (confidence IN ('low', 'medium', 'high')),
    evidence TEXT NOT NULL,
    doubts TEXT NOT NULL,
    endpoints TEXT NOT NULL,
    party TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'over')),
    flapping INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    over_at INTEGER,
    -- The incident that explains this one.
    merged_into BLOB REFERENCES incidents (id),
    acknowledged_by TEXT,
    acknowledged_at INTEGER,
    -- Handed to its party, and until when they should answer.
    handed_by TEXT,
    handed_at INTEGER,
    answer_by INTEGER,
    CHECK ((state = 'over') = (over_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX incidents_open ON incidents (key) WHERE state = 'open';
CREATE INDEX incidents_opened ON incidents (opened_at);

CREATE TABLE incident_sites (
    incident_id BLOB NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    site_code TEXT NOT NULL,
    PRIMARY KEY (incident_id, site_code)
) STRICT;
CREATE INDEX incident_sites_site ON incident_sites (site_code);

CREATE TABLE incident_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident_id BLOB NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX incident_events_incident ON incident_events (incident_id, id);

-- The course of each possible incident: what damps it outlives a restart.
CREATE TABLE incident_courses (
    key TEXT PRIMARY KEY,
    severity TEXT NOT NULL,
    course TEXT NOT NULL
) STRICT;

-- What a site is besides its name: whose line, and work that was announced.
CREATE TABLE site_facts (
    site_code TEXT PRIMARY KEY,
    carrier TEXT,
    maintenance_until INTEGER,
    maintenance_reason TEXT NOT NULL
) STRICT;

-- Days that are not as their weekday.
CREATE TABLE calendar_days (
    day TEXT PRIMARY KEY,
    working INTEGER NOT NULL,
    name TEXT NOT NULL
) STRICT;
