-- The same table as on PostgreSQL.
CREATE TABLE watches (
    process TEXT PRIMARY KEY,
    signed_at INTEGER NOT NULL,
    done_until INTEGER NOT NULL,
    taken_until INTEGER
) WITHOUT ROWID;
