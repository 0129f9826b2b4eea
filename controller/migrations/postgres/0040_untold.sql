-- What a gateway did by leases while the database was away and has not written down yet: connections and events.
ALTER TABLE gateways ADD COLUMN untold BIGINT NOT NULL DEFAULT 0;
