-- The endpoint a session is shown at can show its officer that support looks. Said anew by each connection.
ALTER TABLE sessions ADD COLUMN shows_assists INTEGER NOT NULL DEFAULT 0 CHECK (shows_assists IN (0, 1));
