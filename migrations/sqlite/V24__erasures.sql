-- The same table as on PostgreSQL.
CREATE TABLE erasures (
    user_id TEXT PRIMARY KEY,
    requested_at INTEGER NOT NULL,
    requested_by TEXT NOT NULL,
    position TEXT,
    done_at INTEGER
) WITHOUT ROWID;
CREATE INDEX erasures_pending ON erasures (requested_at) WHERE done_at IS NULL;
