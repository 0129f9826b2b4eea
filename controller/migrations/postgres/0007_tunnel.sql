-- What takes a session up again at a gateway that knows nothing of its tunnel: the hash of a token its endpoint
-- holds. Good only while nobody else connected since (`epoch`).
CREATE TABLE session_returns (
    session_id UUID PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    token_hash BYTEA NOT NULL,
    endpoint_id UUID NOT NULL,
    protocols TEXT NOT NULL,
    epoch BIGINT NOT NULL CHECK (epoch > 0)
);
