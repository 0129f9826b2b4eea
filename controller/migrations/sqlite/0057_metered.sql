-- Offices whose line is paid by the byte. A fact of the place: it stays when the unit is renamed.
CREATE TABLE site_metered (
    site_code TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is said of one computer instead of its site: `yes`, `no`; NULL: as its site.
ALTER TABLE endpoints ADD COLUMN metered TEXT;
