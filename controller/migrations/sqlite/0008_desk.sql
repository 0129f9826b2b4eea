-- A sign-in made at an endpoint works only from that endpoint; a browser's has none.
ALTER TABLE web_sessions ADD COLUMN endpoint_id BLOB REFERENCES endpoints (id) ON DELETE CASCADE;
