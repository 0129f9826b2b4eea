-- Uses of runbooks: which questions were asked for an incident or a call, what was answered, and whether it helped.
CREATE TABLE runbook_runs (
    id UUID PRIMARY KEY,
    runbook TEXT NOT NULL,
    version BIGINT NOT NULL,
    -- As it was then: answers are read by it, whatever becomes of the file.
    book JSONB NOT NULL,
    incident_id UUID REFERENCES incidents (id) ON DELETE CASCADE,
    call_id UUID REFERENCES support_calls (id) ON DELETE CASCADE,
    endpoint_id UUID REFERENCES endpoints (id),
    site_code TEXT NOT NULL,
    -- Names of the computer's checks that failed when it began.
    failed JSONB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'fixed', 'answered', 'left')),
    started_by TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    -- When the last question was answered.
    answered_at BIGINT,
    over_at BIGINT,
    CHECK ((incident_id IS NULL) <> (call_id IS NULL))
);
CREATE INDEX runbook_runs_incident ON runbook_runs (incident_id);
CREATE INDEX runbook_runs_call ON runbook_runs (call_id);
CREATE INDEX runbook_runs_waiting ON runbook_runs (answered_at) WHERE state = 'answered';

CREATE TABLE runbook_answers (
    run_id UUID NOT NULL REFERENCES runbook_runs (id) ON DELETE CASCADE,
    n BIGINT NOT NULL,
    step TEXT NOT NULL,
    answer TEXT NOT NULL,
    note TEXT NOT NULL,
    actor TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (run_id, n)
);
