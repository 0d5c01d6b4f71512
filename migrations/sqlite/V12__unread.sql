-- Unread is what a member has not read. A member has read what came before their own message, so own messages never count;
-- deleted messages don't count either.

-- Deletions by their message.
CREATE INDEX log_deletions ON log (log, target) WHERE kind = 2;

-- What members wrote before counts as read.
UPDATE members SET read_seq = own.seq, read_no = own.message_no
FROM (SELECT log, sender, max(seq) AS seq, max(message_no) AS message_no FROM log WHERE kind = 0 GROUP BY log, sender) own
WHERE members.conversation = own.log AND members.user_id = own.sender AND members.read_seq < own.seq;
UPDATE notifications SET read_at = CAST(1000000 * unixepoch('now', 'subsec') AS INTEGER)
FROM members m WHERE m.user_id = notifications.user_id AND m.conversation = notifications.conversation
    AND notifications.read_at IS NULL AND notifications.last_seq <= m.read_seq;

DROP VIEW message_status;
CREATE VIEW message_status AS
SELECT l.log AS conversation, l.seq, m.user_id, max(m.delivered_seq, m.read_seq) >= l.seq AS delivered,
    m.read_seq >= l.seq AS read
FROM log l JOIN members m ON m.conversation = l.log
WHERE l.kind = 0 AND m.user_id <> l.sender;
