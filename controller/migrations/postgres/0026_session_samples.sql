-- How a session felt, point by point: only times and counts. An hour of it is kept, and a week after the last.
CREATE TABLE session_samples (
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    -- Which connection of the session: another one than at the point before is a resume.
    epoch BIGINT NOT NULL,
    sample JSONB NOT NULL,
    PRIMARY KEY (session_id, at)
);
CREATE INDEX session_samples_at ON session_samples (at);
