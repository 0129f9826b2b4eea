-- What takes a session up again at a gateway that knows nothing of its tunnel: the hash of a token its endpoint
-- holds. Good only while nobody else connected since (`epoch`).
CREATE TABLE session_returns (
    session_id BLOB PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    token_hash BLOB NOT NULL,
    endpoint_id BLOB NOT NULL,
    protocols TEXT NOT NULL,
    epoch INTEGER NOT NULL CHECK (epoch > 0)
) STRICT;
