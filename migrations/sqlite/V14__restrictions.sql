-- The same table as on PostgreSQL. Numbers are never used again (AUTOINCREMENT).

CREATE TABLE restriction_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    token TEXT,
    issued_until INTEGER,
    standing INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    made_by TEXT NOT NULL
);
CREATE INDEX restriction_changes_standing ON restriction_changes (user_id) WHERE standing;
