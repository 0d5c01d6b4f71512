//! The longer statements.

pub(super) const APPEND_MESSAGES: &str = "SELECT o_outcome, o_seq, o_message_no, o_at \
     FROM append_messages($1, $2, $3, $4, $5, $6, $7, $8, $9)";
pub(super) const APPEND_CHANGE: &str = "SELECT o_outcome, o_seq, o_message_no, o_at, o_inbox_seq \
     FROM append_change($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
pub(super) const ENTRIES: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = $1 AND seq > $2 ORDER BY seq LIMIT $3";
pub(super) const MESSAGES: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = $1 AND seq < $2 AND kind = 0 \
     ORDER BY seq DESC LIMIT $3 OFFSET $4";
pub(super) const CONVERSATIONS: &str = "SELECT c.id, c.kind, c.name, c.description, c.open, c.created_by, c.created_at, \
     h.updated_at, h.seq, h.message_no - m.read_no, m.archived, count(*) OVER () \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = $1 AND m.archived = $4 ORDER BY h.updated_at DESC, c.id LIMIT $2 OFFSET $3";
pub(super) const CONVERSATION: &str = "SELECT c.id, c.kind, c.name, c.description, c.open, c.created_by, c.created_at, \
     h.updated_at, h.seq, h.message_no - coalesce(m.read_no, h.message_no), coalesce(m.archived, false) \
     FROM conversations c JOIN heads h ON h.log = c.id \
     LEFT JOIN members m ON m.conversation = c.id AND m.user_id = $2 WHERE c.id = $1";
pub(super) const MEMBERS: &str = "SELECT m.user_id, u.name, m.delivered_seq, m.read_seq \
     FROM members m LEFT JOIN users u ON u.id = m.user_id WHERE m.conversation = $1 AND m.user_id > $2 \
     ORDER BY m.user_id LIMIT $3";
pub(super) const MARK: &str = "SELECT o_delivered, o_read FROM move_marks($1, $2, $3, $4)";
pub(super) const THREAD: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = $1 AND target = $5 AND seq < $2 AND kind = 0 \
     ORDER BY seq DESC LIMIT $3 OFFSET $4";
pub(super) const MESSAGE: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = $1 AND seq = $2 AND kind = 0";
/// The newest entries of each conversation are looked through, from the newest one backwards. The patterns pass over most
/// of them cheaply; what remains is split into words.
pub(super) const SEARCH: &str = "WITH within AS ( \
         SELECT h.log, h.seq AS head FROM heads h WHERE h.log = $3 \
         UNION ALL (SELECT h.log, h.seq FROM members m JOIN heads h ON h.log = m.conversation \
             WHERE m.user_id = $1 ORDER BY h.updated_at DESC LIMIT $8) \
     ) SELECT f.log, f.seq, f.message_no, f.kind, f.sender, f.sender_name, f.dedupe, f.client_gave_id, f.content, f.target, \
         f.subject, f.flag, f.edited_at, f.deleted, f.created_at \
     FROM within CROSS JOIN LATERAL ( \
         SELECT * FROM log l WHERE l.log = within.log AND l.seq > within.head - $7::bigint AND l.kind = 0 AND NOT l.deleted \
             AND lower(l.content) LIKE ALL ($6::text[]) AND words_of(l.content) @@ to_tsquery('simple', $2) \
         ORDER BY l.seq DESC LIMIT $4::bigint + $5::bigint \
     ) f ORDER BY f.created_at DESC, f.log, f.seq DESC LIMIT $4 OFFSET $5";
pub(super) const REACTIONS: &str = "SELECT seq, emoji, count(*), bool_or(user_id = $3) FROM reactions \
     WHERE log = $1 AND seq = ANY ($2) GROUP BY seq, emoji ORDER BY seq, count(*) DESC, emoji";
pub(super) const REPLIES: &str = "SELECT target, count(*) FROM log \
     WHERE log = $1 AND kind = 0 AND target = ANY ($2) GROUP BY target";
pub(super) const FIRST_MEMBERS: &str = "SELECT c.id, m.user_id, u.name, m.delivered_seq, m.read_seq \
     FROM unnest($1::text[]) AS c (id) CROSS JOIN LATERAL ( \
         SELECT * FROM members m WHERE m.conversation = c.id ORDER BY m.user_id LIMIT 100 \
     ) m LEFT JOIN users u ON u.id = m.user_id ORDER BY c.id, m.user_id";
pub(super) const DIRECTS: &str = "SELECT c.id, c.direct_key, m.delivered_seq, h.seq \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = $1 AND c.direct_key IS NOT NULL ORDER BY h.updated_at DESC, c.id LIMIT $2";
pub(super) const ACQUAINTANCES: &str = "SELECT DISTINCT o.user_id FROM members m CROSS JOIN LATERAL ( \
         SELECT user_id FROM members WHERE conversation = m.conversation AND user_id <> $1 LIMIT $2 \
     ) o WHERE m.user_id = $1 LIMIT $2";
