-- The endpoint a session is shown at can show its officer that support looks. Said anew by each connection.
ALTER TABLE sessions ADD COLUMN shows_assists BOOLEAN NOT NULL DEFAULT FALSE;
