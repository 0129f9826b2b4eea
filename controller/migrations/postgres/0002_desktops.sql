-- Hosts, images, pools and desktops. The database is the truth; hosts are made to follow it.
CREATE TABLE hosts (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uri TEXT NOT NULL,
    accel_policy TEXT NOT NULL,
    state TEXT NOT NULL,
    state_reason TEXT NOT NULL,
    info JSONB,
    unknown_desktops BIGINT NOT NULL,
    seen_at BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE images (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    file TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    virtual_size_bytes BIGINT NOT NULL,
    file_size_bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    error TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (name, version)
);

CREATE TABLE pools (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    site_code TEXT NOT NULL,
    image_id UUID NOT NULL REFERENCES images (id),
    size BIGINT NOT NULL,
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib BIGINT,
    persistent BOOLEAN NOT NULL,
    start_desktops BOOLEAN NOT NULL,
    desired TEXT NOT NULL,
    generation BIGINT NOT NULL,
    problem_code TEXT,
    problem_text TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE desktops (
    id UUID PRIMARY KEY,
    pool_id UUID NOT NULL REFERENCES pools (id),
    ordinal BIGINT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    host_id UUID REFERENCES hosts (id),
    desired TEXT NOT NULL,
    state TEXT NOT NULL,
    state_since BIGINT NOT NULL,
    disk_generation BIGINT NOT NULL,
    force_stop BOOLEAN NOT NULL,
    reset_asked BOOLEAN NOT NULL,
    stop_asked_at BIGINT,
    started_at BIGINT,
    boot_ms BIGINT,
    assigned_user UUID REFERENCES users (id),
    addresses JSONB NOT NULL,
    generation BIGINT NOT NULL,
    lease_owner UUID,
    lease_until BIGINT,
    attempts BIGINT NOT NULL,
    next_try_at BIGINT,
    error_code TEXT,
    error_text TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (pool_id, ordinal)
);
CREATE INDEX desktops_due ON desktops (next_try_at);
CREATE INDEX desktops_host ON desktops (host_id);
CREATE INDEX desktops_user ON desktops (assigned_user);

-- Desktops that were removed: only what is listed here may be cleared from a host as left over.
CREATE TABLE removed_desktops (
    id UUID PRIMARY KEY,
    removed_at BIGINT NOT NULL
);
