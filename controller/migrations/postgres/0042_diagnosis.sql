-- What support had endpoints do, and what came of it. Times are the controllers' clock, in microseconds.
CREATE TABLE diagnoses (
    id UUID PRIMARY KEY,
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    -- Its word in the catalogue, and the whole of it as it is signed.
    name TEXT NOT NULL,
    work JSONB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asked', 'queued', 'sent', 'asking', 'running', 'ended')),
    asked_by TEXT NOT NULL,
    asked_name TEXT NOT NULL,
    reason TEXT NOT NULL,
    approved_by TEXT,
    asked_at BIGINT NOT NULL,
    -- When the state it is in runs out.
    due_at BIGINT NOT NULL,
    sent_at BIGINT,
    began_at BIGINT,
    ended_at BIGINT,
    outcome TEXT,
    code TEXT,
    ended_by TEXT,
    -- Somebody does not want it any more; the endpoint is still to be told.
    cancelled BOOLEAN NOT NULL DEFAULT FALSE,
    progress TEXT,
    verdict JSONB,
    CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CHECK ((state = 'ended') = (outcome IS NOT NULL))
);
CREATE INDEX diagnoses_endpoint ON diagnoses (endpoint_id, asked_at);
CREATE INDEX diagnoses_open ON diagnoses (state) WHERE state <> 'ended';
CREATE INDEX diagnoses_asked ON diagnoses (asked_at);

-- What each step found. `text`: what it wrote, cut to its cap at the endpoint and here.
CREATE TABLE diagnosis_steps (
    diagnosis_id UUID NOT NULL REFERENCES diagnoses (id) ON DELETE CASCADE,
    step BIGINT NOT NULL,
    body JSONB,
    text TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (diagnosis_id, step)
);
