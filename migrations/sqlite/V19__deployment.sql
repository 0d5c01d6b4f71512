-- The same table as on PostgreSQL.
CREATE TABLE deployment (
    one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))) CHECK (length(id) >= 32),
    epoch INTEGER NOT NULL DEFAULT 1 CHECK (epoch > 0)
);
INSERT INTO deployment DEFAULT VALUES;
