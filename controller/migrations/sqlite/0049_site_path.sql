-- How an office's line to the data centre did, hour by hour for the last week: sums of `n` measurements. A fact of the
-- place: it stays when another computer measures.
CREATE TABLE site_path_hours (
    site_code TEXT NOT NULL,
    hour INTEGER NOT NULL,
    n INTEGER NOT NULL,
    p50_us INTEGER NOT NULL,
    p95_us INTEGER NOT NULL,
    jitter_us INTEGER NOT NULL,
    loss_ppm INTEGER NOT NULL,
    PRIMARY KEY (site_code, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX site_path_hours_hour ON site_path_hours (hour);

-- What that round trip usually takes there: the median of its hours.
CREATE TABLE site_path_usual (
    site_code TEXT PRIMARY KEY,
    p95_us INTEGER NOT NULL,
    hours INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
