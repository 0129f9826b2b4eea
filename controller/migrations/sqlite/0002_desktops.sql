-- Hosts, images, pools and desktops. The database is the truth; hosts are made to follow it.
CREATE TABLE hosts (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uri TEXT NOT NULL,
    accel_policy TEXT NOT NULL,
    state TEXT NOT NULL,
    state_reason TEXT NOT NULL,
    info TEXT,
    unknown_desktops INTEGER NOT NULL,
    seen_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE images (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    file TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    virtual_size_bytes INTEGER NOT NULL,
    file_size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    error TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;

CREATE TABLE pools (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    site_code TEXT NOT NULL,
    image_id BLOB NOT NULL REFERENCES images (id),
    size INTEGER NOT NULL,
    vcpus INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    disk_gib INTEGER,
    persistent INTEGER NOT NULL,
    start_desktops INTEGER NOT NULL,
    desired TEXT NOT NULL,
    generation INTEGER NOT NULL,
    problem_code TEXT,
    problem_text TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE desktops (
    id BLOB PRIMARY KEY,
    pool_id BLOB NOT NULL REFERENCES pools (id),
    ordinal INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE,
    host_id BLOB REFERENCES hosts (id),
    desired TEXT NOT NULL,
    state TEXT NOT NULL,
    state_since INTEGER NOT NULL,
    disk_generation INTEGER NOT NULL,
    force_stop INTEGER NOT NULL,
    reset_asked INTEGER NOT NULL,
    stop_asked_at INTEGER,
    started_at INTEGER,
    boot_ms INTEGER,
    assigned_user BLOB REFERENCES users (id),
    addresses TEXT NOT NULL,
    generation INTEGER NOT NULL,
    lease_owner BLOB,
    lease_until INTEGER,
    attempts INTEGER NOT NULL,
    next_try_at INTEGER,
    error_code TEXT,
    error_text TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (pool_id, ordinal)
) STRICT;
CREATE INDEX desktops_due ON desktops (next_try_at);
CREATE INDEX desktops_host ON desktops (host_id);
CREATE INDEX desktops_user ON desktops (assigned_user);

-- Desktops that were removed: only what is listed here may be cleared from a host as left over.
CREATE TABLE removed_desktops (
    id BLOB PRIMARY KEY,
    removed_at INTEGER NOT NULL
) STRICT;
