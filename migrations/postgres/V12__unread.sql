-- Unread is what a member has not read. A member has read what came before their own message, so own messages never count;
-- deleted messages don't count either. The functions keep their parameters: nodes of the version before use them while they
-- are replaced.

-- Deletions by their message. On a large database, make this index before the upgrade: CREATE INDEX CONCURRENTLY with the
-- same name and columns. Appends wait while it is made here.
CREATE INDEX IF NOT EXISTS log_deletions ON log (log, target) WHERE kind = 2;

COMMENT ON COLUMN members.delivered_seq IS 'A device of the user confirmed what came up to here';
COMMENT ON COLUMN members.read_seq IS 'Read up to here, by a mark or because an own message stands here';
COMMENT ON COLUMN members.read_no IS 'Number of messages up to read_seq, deleted ones included';

-- What members wrote before counts as read. Rows are locked in the order in which other functions lock them.
DO $$
DECLARE
    own record;
BEGIN
    FOR own IN SELECT log, sender, max(seq) AS seq, max(message_no) AS message_no FROM log
        WHERE kind = 0 GROUP BY log, sender ORDER BY log, sender
    LOOP
        UPDATE members SET read_seq = own.seq, read_no = own.message_no
        WHERE conversation = own.log AND user_id = own.sender AND read_seq < own.seq;
        IF FOUND THEN
            UPDATE notifications SET read_at = now()
            WHERE user_id = own.sender AND conversation = own.log AND read_at IS NULL AND last_seq <= own.seq;
        END IF;
    END LOOP;
END
$$;

CREATE OR REPLACE VIEW message_status AS
SELECT l.log AS conversation, l.seq, m.user_id, greatest(m.delivered_seq, m.read_seq) >= l.seq AS delivered,
    m.read_seq >= l.seq AS read
FROM log l JOIN members m ON m.conversation = l.log
WHERE l.kind = 0 AND m.user_id <> l.sender;

-- Number of messages from p_first to p_last that are not deleted.
CREATE FUNCTION messages_between(p_conversation text, p_first bigint, p_last bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT greatest(0,
        coalesce((SELECT message_no FROM log WHERE log = p_conversation AND seq <= p_last ORDER BY seq DESC LIMIT 1), 0)
        - coalesce((SELECT message_no FROM log WHERE log = p_conversation AND seq < p_first ORDER BY seq DESC LIMIT 1), 0)
        - (SELECT count(*) FROM (SELECT FROM log WHERE log = p_conversation AND kind = 2
            AND target BETWEEN p_first AND p_last LIMIT 10000) deletions))
$$;

-- As before. Each message also moves its sender's read mark up to itself, which ends the run of notifications before it. The
-- delivered mark stays: a device that missed something still gets it. The plan is always the same, so it is made once for
-- each connection.
CREATE OR REPLACE FUNCTION append_messages(
    p_log text[], p_sender text[], p_sender_name text[], p_dedupe text[], p_client_gave_id boolean[],
    p_must_be_member boolean[], p_content text[], p_reply_to bigint[], p_is_ai boolean[], p_persona text[],
    p_retried boolean, p_fingerprint bigint[]
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    stamp timestamptz;
BEGIN
    PERFORM 1 FROM heads h WHERE h.log = ANY (p_log) ORDER BY h.log COLLATE "C" FOR NO KEY UPDATE;
    IF cardinality(p_log) > 1 THEN
        -- Two transactions that mark the same members would otherwise lock them in different orders.
        PERFORM 1 FROM unnest(p_log, p_sender) AS i (log, sender)
            JOIN members m ON m.conversation = i.log AND m.user_id = i.sender
            ORDER BY m.conversation, m.user_id FOR NO KEY UPDATE OF m;
    END IF;
    stamp := clock_timestamp();
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT i.*, h.seq AS head, h.message_no AS head_no,
            old.seq AS old_seq, old.message_no AS old_no, old.created_at AS old_at,
            CASE
                WHEN h.log IS NULL THEN 2
                WHEN p_retried AND old.seq IS NOT NULL THEN known.outcome
                WHEN i.must_be_member AND NOT EXISTS (
                    SELECT FROM members m WHERE m.conversation = i.log AND m.user_id = i.sender) THEN 1
                WHEN i.must_be_member AND EXISTS (SELECT FROM blocks b WHERE b.blocked = i.sender)
                    AND is_blocked_in_direct(i.log, i.sender) THEN 8
                WHEN old.seq IS NOT NULL THEN known.outcome
                WHEN i.reply_to IS NOT NULL AND NOT EXISTS (
                    SELECT FROM log t WHERE t.log = i.log AND t.seq = i.reply_to AND t.kind = 0) THEN 3
                ELSE 0
            END AS outcome
        FROM unnest(p_log, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_must_be_member, p_content,
                p_reply_to, p_is_ai, p_persona, p_fingerprint)
            WITH ORDINALITY AS i (log, sender, sender_name, dedupe, client_gave_id, must_be_member, content, reply_to,
                is_ai, persona, fingerprint, place)
        LEFT JOIN heads h ON h.log = i.log
        LEFT JOIN log old ON old.log = i.log AND old.sender = i.sender AND old.dedupe = i.dedupe
        CROSS JOIN LATERAL (
            SELECT CASE WHEN old.kind <> 0 OR old.fingerprint <> i.fingerprint THEN 9 ELSE 4 END AS outcome
        ) known
    ), numbered AS MATERIALIZED (
        SELECT j.*, count(*) FILTER (WHERE j.outcome = 0) OVER (PARTITION BY j.log ORDER BY j.place) AS nth
        FROM judged j
    ), inserted AS (
        INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target,
            subject, flag, created_at, fingerprint)
        SELECT n.log, n.head + n.nth, n.head_no + n.nth, 0, n.sender, n.sender_name, n.dedupe, n.client_gave_id,
            n.content, n.reply_to, n.persona, n.is_ai, stamp, n.fingerprint
        FROM numbered n WHERE n.outcome = 0
    ), moved AS (
        UPDATE heads h SET seq = h.seq + added.count, message_no = h.message_no + added.count, updated_at = stamp
        FROM (SELECT n.log, max(n.nth) AS count FROM numbered n WHERE n.outcome = 0 GROUP BY n.log) added
        WHERE h.log = added.log
    ), marked AS (
        UPDATE members m SET read_seq = own.seq, read_no = own.message_no
        FROM (SELECT n.log, n.sender, max(n.head + n.nth) AS seq, max(n.head_no + n.nth) AS message_no
            FROM numbered n WHERE n.outcome = 0 GROUP BY n.log, n.sender) own
        WHERE m.conversation = own.log AND m.user_id = own.sender
        RETURNING m.conversation, m.user_id, m.read_seq
    ), closed AS (
        -- It reads from the update of the members, whose rows are locked first everywhere.
        UPDATE notifications n SET read_at = stamp
        FROM marked m
        WHERE n.user_id = m.user_id AND n.conversation = m.conversation AND n.read_at IS NULL AND n.last_seq <= m.read_seq
    )
    SELECT n.outcome::smallint,
        CASE n.outcome WHEN 0 THEN n.head + n.nth ELSE n.old_seq END,
        CASE n.outcome WHEN 0 THEN n.head_no + n.nth ELSE n.old_no END,
        CASE n.outcome WHEN 0 THEN stamp ELSE n.old_at END
    FROM numbered n ORDER BY n.place;
END
$$;

-- As before. Deleted messages and what is read are not counted.
CREATE OR REPLACE FUNCTION notify_users(
    p_conversation text, p_first bigint, p_last bigint, p_users text[], p_undelivered boolean, p_queue bigint
) RETURNS TABLE (o_user text, o_from bigint, o_inbox_seq bigint, o_at timestamptz, o_queued boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    run notifications%ROWTYPE;
    open boolean;
    has_read bigint;
    known bigint;
    room bigint;
BEGIN
    o_at := clock_timestamp();
    FOR o_user IN SELECT DISTINCT u COLLATE "C" FROM unnest(p_users) u ORDER BY 1 LOOP
        -- Against a read mark, and against whoever reads the run: they come before all of this, or after it.
        SELECT read_seq, CASE WHEN p_undelivered THEN greatest(read_seq, delivered_seq) ELSE read_seq END
        INTO has_read, known FROM members
        WHERE conversation = p_conversation AND user_id = o_user FOR NO KEY UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT * INTO run FROM notifications
        WHERE user_id = o_user AND conversation = p_conversation AND read_at IS NULL FOR NO KEY UPDATE;
        open := FOUND;
        SELECT greatest(known, max(last_seq)) INTO known FROM notifications
        WHERE user_id = o_user AND conversation = p_conversation AND read_at IS NOT NULL;
        SELECT seq INTO o_from FROM log
        WHERE log = p_conversation AND seq >= greatest(p_first, known + 1) AND seq <= p_last AND kind = 0
            AND sender <> o_user AND NOT deleted
        ORDER BY seq LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        -- A run that is read in part goes on behind the read mark.
        run.from_seq := CASE WHEN run.from_seq > has_read THEN least(run.from_seq, o_from) ELSE o_from END;
        run.last_seq := greatest(run.last_seq, p_last);
        run.count := messages_between(p_conversation, run.from_seq, run.last_seq);
        IF open THEN
            UPDATE notifications SET from_seq = run.from_seq, last_seq = run.last_seq, count = run.count WHERE id = run.id;
            CONTINUE;
        END IF;
        INSERT INTO notifications (user_id, conversation, from_seq, last_seq, count, created_at)
        VALUES (o_user, p_conversation, run.from_seq, run.last_seq, run.count, o_at) RETURNING id INTO run.id;
        IF room IS NULL THEN
            SELECT p_queue - count(*) INTO room FROM (SELECT FROM notification_posts LIMIT p_queue) waiting;
        END IF;
        o_queued := room > 0;
        IF o_queued THEN
            INSERT INTO notification_posts (id, queued_at, due) VALUES (run.id, o_at, o_at);
            room := room - 1;
        END IF;
        o_inbox_seq := append_to_inbox(o_user, 8::smallint, p_conversation, o_from, o_user, o_user, o_at);
        RETURN NEXT;
    END LOOP;
END
$$;

-- As before. What is read is delivered, also where no device confirmed it.
CREATE OR REPLACE FUNCTION move_marks(p_conversation text, p_user text, p_delivered bigint, p_read bigint)
RETURNS TABLE (o_delivered bigint, o_read bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head bigint;
BEGIN
    SELECT seq INTO head FROM heads WHERE log = p_conversation;
    UPDATE members SET delivered_seq = greatest(delivered_seq, least(p_delivered, head)),
        read_seq = greatest(read_seq, least(p_read, head)),
        read_no = CASE WHEN least(p_read, head) > read_seq THEN coalesce(
            (SELECT message_no FROM log WHERE log = p_conversation AND seq <= least(p_read, head) ORDER BY seq DESC LIMIT 1),
            read_no) ELSE read_no END
    WHERE conversation = p_conversation AND user_id = p_user
        AND (least(p_delivered, head) > delivered_seq OR least(p_read, head) > read_seq)
    RETURNING greatest(delivered_seq, read_seq), read_seq INTO o_delivered, o_read;
    IF NOT FOUND THEN RETURN; END IF;
    UPDATE notifications SET read_at = clock_timestamp()
    WHERE user_id = p_user AND conversation = p_conversation AND read_at IS NULL AND last_seq <= o_read;
    RETURN NEXT;
END
$$;
