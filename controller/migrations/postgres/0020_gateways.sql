-- Gateways as operators see them and as sessions are placed on them. A row is one process; what an operator said of
-- its name (`draining`) is taken over by the next process of that name.
ALTER TABLE gateways ADD COLUMN name TEXT NOT NULL DEFAULT '';
-- Where browsers and endpoints reach it; empty: the controller's own address, or not at all.
ALTER TABLE gateways ADD COLUMN web_url TEXT NOT NULL DEFAULT '';
ALTER TABLE gateways ADD COLUMN agent_url TEXT NOT NULL DEFAULT '';
ALTER TABLE gateways ADD COLUMN version TEXT NOT NULL DEFAULT '';
-- It is part of a controller's process, and ends with it.
ALTER TABLE gateways ADD COLUMN embedded BOOLEAN NOT NULL DEFAULT TRUE;
-- It reaches hosts that only the controller's own machine reaches.
ALTER TABLE gateways ADD COLUMN local_hosts BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE gateways ADD COLUMN connections BIGINT NOT NULL DEFAULT 0;
ALTER TABLE gateways ADD COLUMN draining BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE gateways ADD COLUMN stopped_at BIGINT;
