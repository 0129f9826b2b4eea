-- Programs of endpoints, as they were signed. Kept here, so that every controller has them.
CREATE TABLE agent_programs (
    sha256 TEXT PRIMARY KEY,
    program BYTEA NOT NULL
);

-- Releases of the agent and how they spread. One that spreads for each kind of processor.
CREATE TABLE agent_releases (
    id UUID PRIMARY KEY,
    counter BIGINT NOT NULL UNIQUE CHECK (counter > 0),
    version TEXT NOT NULL,
    arch TEXT NOT NULL,
    sha256 TEXT NOT NULL REFERENCES agent_programs (sha256),
    size BIGINT NOT NULL,
    -- The widest ring it was signed for.
    widest TEXT NOT NULL CHECK (widest IN ('lab', 'commune', 'canary', 'fifth', 'all')),
    -- The text that was signed, and who signed it.
    manifest TEXT NOT NULL,
    signatures JSONB NOT NULL,
    hotfix BOOLEAN NOT NULL,
    any_time BOOLEAN NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'stopped', 'done', 'aborted', 'superseded')),
    reason TEXT NOT NULL,
    -- The ring that is let in, and since when.
    ring TEXT NOT NULL CHECK (ring IN ('lab', 'commune', 'canary', 'fifth', 'all')),
    ring_since BIGINT NOT NULL,
    -- Failures before that are forgiven.
    forgiven_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX agent_releases_one ON agent_releases (arch) WHERE state IN ('running', 'paused', 'stopped');

-- How far each computer is with a release.
CREATE TABLE agent_release_members (
    release_id UUID NOT NULL REFERENCES agent_releases (id) ON DELETE CASCADE,
    endpoint_id UUID NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    ring TEXT NOT NULL CHECK (ring IN ('lab', 'commune', 'canary', 'fifth', 'all')),
    stage TEXT NOT NULL CHECK (stage IN ('pending', 'fetching', 'ready', 'trial', 'committed', 'rolled_back', 'banned', 'refused')),
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    strikes BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    from_peer BIGINT NOT NULL,
    failed_at BIGINT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (release_id, endpoint_id)
);
CREATE INDEX agent_release_members_stage ON agent_release_members (release_id, ring, stage);
CREATE INDEX agent_release_members_endpoint ON agent_release_members (endpoint_id);

-- What updaters last said.
CREATE TABLE endpoint_updaters (
    endpoint_id UUID PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    arch TEXT NOT NULL,
    -- What runs; absent: the package's own.
    release TEXT,
    counter BIGINT NOT NULL,
    -- Where computers of its office fetch what it keeps, and what that is.
    keeps_at TEXT,
    keeps TEXT,
    seen_at BIGINT NOT NULL
);
