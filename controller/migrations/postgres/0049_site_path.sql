-- How an office's line to the data centre did, hour by hour for the last week: sums of `n` measurements. A fact of the
-- place: it stays when another computer measures.
CREATE TABLE site_path_hours (
    site_code TEXT NOT NULL,
    hour BIGINT NOT NULL,
    n BIGINT NOT NULL,
    p50_us BIGINT NOT NULL,
    p95_us BIGINT NOT NULL,
    jitter_us BIGINT NOT NULL,
    loss_ppm BIGINT NOT NULL,
    PRIMARY KEY (site_code, hour)
);
CREATE INDEX site_path_hours_hour ON site_path_hours (hour);

-- What that round trip usually takes there: the median of its hours.
CREATE TABLE site_path_usual (
    site_code TEXT PRIMARY KEY,
    p95_us BIGINT NOT NULL,
    hours BIGINT NOT NULL,
    at BIGINT NOT NULL
);
