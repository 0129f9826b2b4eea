-- How each incident was judged, look by look where that changed: what was known then.
CREATE TABLE incident_judgements (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident_id BLOB NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    cause TEXT NOT NULL,
    severity TEXT NOT NULL,
    confidence TEXT NOT NULL,
    evidence TEXT NOT NULL,
    doubts TEXT NOT NULL,
    endpoints TEXT NOT NULL
) STRICT;
CREATE INDEX incident_judgements_incident ON incident_judgements (incident_id, at);
-- Incidents from before are known as they are.
INSERT INTO incident_judgements (incident_id, at, cause, severity, confidence, evidence, doubts, endpoints)
    SELECT id, changed_at, cause, severity, confidence, evidence, doubts, endpoints FROM incidents;

-- Work that was announced, kept for reckoning what a carrier owes.
CREATE TABLE site_works (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    site_code TEXT NOT NULL,
    from_at INTEGER NOT NULL,
    until_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    set_by TEXT NOT NULL,
    CHECK (until_at > from_at)
) STRICT;
CREATE INDEX site_works_site ON site_works (site_code, until_at);
