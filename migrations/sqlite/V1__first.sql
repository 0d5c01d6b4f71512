-- The same tables as on PostgreSQL. Times are microseconds since 1970; text compares byte by byte.

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    status INTEGER NOT NULL DEFAULT 0,
    last_seen INTEGER
) WITHOUT ROWID;

CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    kind INTEGER NOT NULL,
    name TEXT,
    description TEXT,
    open INTEGER NOT NULL,
    direct_key TEXT UNIQUE,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE heads (
    log TEXT PRIMARY KEY,
    seq INTEGER NOT NULL DEFAULT 0,
    message_no INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE members (
    conversation TEXT NOT NULL,
    user_id TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    delivered_seq INTEGER NOT NULL DEFAULT 0,
    read_seq INTEGER NOT NULL DEFAULT 0,
    read_no INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation, user_id)
) WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE log (
    log TEXT NOT NULL,
    seq INTEGER NOT NULL,
    message_no INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    sender TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    dedupe TEXT NOT NULL,
    client_gave_id INTEGER NOT NULL,
    content TEXT,
    target INTEGER,
    subject TEXT,
    flag INTEGER NOT NULL DEFAULT 0,
    edited_at INTEGER,
    deleted INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (log, seq),
    UNIQUE (log, sender, dedupe)
) WITHOUT ROWID;

CREATE TABLE reactions (
    log TEXT NOT NULL,
    seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    emoji TEXT NOT NULL,
    PRIMARY KEY (log, seq, user_id, emoji)
) WITHOUT ROWID;

CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    conversation TEXT NOT NULL,
    from_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    count INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    read_at INTEGER
);
CREATE UNIQUE INDEX notifications_open ON notifications (user_id, conversation) WHERE read_at IS NULL;
CREATE INDEX notifications_by_user ON notifications (user_id, id);

CREATE VIEW message_status AS
SELECT l.log AS conversation, l.seq, m.user_id, m.delivered_seq >= l.seq AS delivered, m.read_seq >= l.seq AS read
FROM log l JOIN members m ON m.conversation = l.log
WHERE l.kind = 0 AND m.user_id <> l.sender;
