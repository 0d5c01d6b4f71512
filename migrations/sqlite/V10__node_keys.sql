-- As on PostgreSQL.
CREATE TABLE node_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    secret BLOB NOT NULL DEFAULT (randomblob(32)) CHECK (length(secret) >= 32),
    created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
);
INSERT INTO node_keys DEFAULT VALUES;
