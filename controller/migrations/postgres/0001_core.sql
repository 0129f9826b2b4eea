-- Installation, sites, people and the audit. Times are microseconds since 1970 UTC.
CREATE TABLE installation (
    id UUID PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE sites (
    code TEXT NOT NULL,
    valid_from TEXT NOT NULL,
    valid_to TEXT,
    name TEXT NOT NULL,
    short_name TEXT NOT NULL,
    type TEXT NOT NULL,
    level TEXT NOT NULL,
    parent_code TEXT,
    phase TEXT,
    alt_name TEXT,
    search_key TEXT NOT NULL,
    PRIMARY KEY (code, valid_from)
);
CREATE INDEX sites_parent ON sites (parent_code);

CREATE TABLE users (
    id UUID PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    search_key TEXT NOT NULL,
    role TEXT NOT NULL,
    site_code TEXT,
    language TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled BOOLEAN NOT NULL,
    last_sign_in_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Wrong passwords, also for names nobody has: otherwise the lock would tell which names exist.
CREATE TABLE sign_in_guards (
    name_key TEXT PRIMARY KEY,
    failures BIGINT NOT NULL,
    locked_until BIGINT,
    last_failure_at BIGINT NOT NULL
);

CREATE TABLE web_sessions (
    token_hash BYTEA PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    csrf TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ip TEXT NOT NULL
);
CREATE INDEX web_sessions_user ON web_sessions (user_id);

CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    role TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail JSONB NOT NULL,
    ip TEXT NOT NULL,
    result TEXT NOT NULL
);
CREATE INDEX audit_at ON audit (at);
-- Refusals by address, for the brake on sign-ins.
CREATE INDEX audit_refused ON audit (ip, at) WHERE result <> 'ok';
