-- Programs of endpoints, as they were signed. Kept here, so that every controller has them.
CREATE TABLE agent_programs (
    sha256 TEXT PRIMARY KEY,
    program BLOB NOT NULL
) STRICT;

-- Releases of the agent and how they spread. One that spreads for each kind of processor.
CREATE TABLE agent_releases (
    id BLOB PRIMARY KEY,
    counter INTEGER NOT NULL UNIQUE CHECK (counter > 0),
    version TEXT NOT NULL,
    arch TEXT NOT NULL,
    sha256 TEXT NOT NULL REFERENCES agent_programs (sha256),
    size INTEGER NOT NULL,
    -- The widest ring it was signed for.
    widest TEXT NOT NULL CHECK (widest IN ('lab', 'commune', 'canary', 'fifth', 'all')),
    -- The text that was signed, and who signed it.
    manifest TEXT NOT NULL,
    signatures TEXT NOT NULL,
    hotfix INTEGER NOT NULL,
    any_time INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'stopped', 'done', 'aborted', 'superseded')),
    reason TEXT NOT NULL,
    -- The ring that is let in, and since when.
    ring TEXT NOT NULL CHECK (ring IN ('lab', 'commune', 'canary', 'fifth', 'all')),
    ring_since INTEGER NOT NULL,
    -- Failures before that are forgiven.
    forgiven_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX agent_releases_one ON agent_releases (arch) WHERE state IN ('running', 'paused', 'stopped');

-- How far each computer is with a release.
CREATE TABLE agent_release_members (
    release_id BLOB NOT NULL REFERENCES agent_releases (id) ON DELETE CASCADE,
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    ring TEXT NOT NULL CHECK (ring IN ('lab', 'commune', 'canary', 'fifth', 'all')),
    stage TEXT NOT NULL CHECK (stage IN ('pending', 'fetching', 'ready', 'trial', 'committed', 'rolled_back', 'banned', 'refused')),
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    strikes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    from_peer INTEGER NOT NULL,
    failed_at INTEGER,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (release_id, endpoint_id)
) STRICT;
CREATE INDEX agent_release_members_stage ON agent_release_members (release_id, ring, stage);
CREATE INDEX agent_release_members_endpoint ON agent_release_members (endpoint_id);

-- What updaters last said.
CREATE TABLE endpoint_updaters (
    endpoint_id BLOB PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    arch TEXT NOT NULL,
    -- What runs; absent: the package's own.
    release TEXT,
    counter INTEGER NOT NULL,
    -- Where computers of its office fetch what it keeps, and what that is.
    keeps_at TEXT,
    keeps TEXT,
    seen_at INTEGER NOT NULL
) STRICT;
