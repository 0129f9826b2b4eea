-- What an office's line carries towards it. A fact of the place, not of the administrative unit of a day: it stays when
-- the unit is renamed. No row: not known, and nothing is shaped.
CREATE TABLE site_lines (
    site_code TEXT PRIMARY KEY,
    down_kbit BIGINT NOT NULL CHECK (down_kbit > 0),
    updated_at BIGINT NOT NULL
);
