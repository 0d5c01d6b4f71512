-- The same table as on PostgreSQL.
CREATE TABLE notification_posts (
    id INTEGER PRIMARY KEY,
    queued_at INTEGER NOT NULL,
    due INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX notification_posts_due ON notification_posts (due);
