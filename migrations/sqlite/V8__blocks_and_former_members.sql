-- The same tables as on PostgreSQL.

CREATE TABLE blocks (
    user_id TEXT NOT NULL,
    blocked TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, blocked)
) WITHOUT ROWID;

CREATE TABLE former_members (
    conversation TEXT NOT NULL,
    user_id TEXT NOT NULL,
    ending INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    PRIMARY KEY (conversation, user_id)
) WITHOUT ROWID;
