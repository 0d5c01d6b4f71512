-- The same columns and table as on PostgreSQL.
ALTER TABLE heads ADD COLUMN removed_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE heads ADD COLUMN removed_no INTEGER NOT NULL DEFAULT 0;

ALTER TABLE conversations ADD COLUMN retention_days INTEGER CHECK (retention_days >= 0);
CREATE INDEX conversations_retained ON conversations (id) WHERE retention_days > 0;
CREATE INDEX notifications_by_conversation ON notifications (conversation, last_seq);

CREATE TABLE upkeep (
    job TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    held_until INTEGER NOT NULL,
    done_at INTEGER
) WITHOUT ROWID;
