-- How each incident was judged, look by look where that changed: what was known then.
CREATE TABLE incident_judgements (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id UUID NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    cause TEXT NOT NULL,
    severity TEXT NOT NULL,
    confidence TEXT NOT NULL,
    evidence JSONB NOT NULL,
    doubts JSONB NOT NULL,
    endpoints JSONB NOT NULL
);
CREATE INDEX incident_judgements_incident ON incident_judgements (incident_id, at);
-- Incidents from before are known as they are.
INSERT INTO incident_judgements (incident_id, at, cause, severity, confidence, evidence, doubts, endpoints)
    SELECT id, changed_at, cause, severity, confidence, evidence, doubts, endpoints FROM incidents;

-- Work that was announced, kept for reckoning what a carrier owes.
CREATE TABLE site_works (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site_code TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    set_by TEXT NOT NULL,
    CHECK (until_at > from_at)
);
CREATE INDEX site_works_site ON site_works (site_code, until_at);
