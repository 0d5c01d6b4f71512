-- As before. A few messages are appended one by one: the statement for any number of them takes longer to start than all
-- statements of one message take to run. Both ways judge a message in the same order.
CREATE OR REPLACE FUNCTION append_messages(
    p_log text[], p_sender text[], p_sender_name text[], p_dedupe text[], p_client_gave_id boolean[],
    p_must_be_member boolean[], p_content text[], p_reply_to bigint[], p_is_ai boolean[], p_persona text[], p_data text[],
    p_retried boolean, p_fingerprint bigint[]
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    stamp timestamptz;
BEGIN
    IF cardinality(p_log) > 1 THEN
        PERFORM 1 FROM heads h WHERE h.log = ANY (p_log) ORDER BY h.log COLLATE "C" FOR NO KEY UPDATE;
        -- Two transactions that mark the same members would otherwise lock them in different orders.
        PERFORM 1 FROM unnest(p_log, p_sender) AS i (log, sender)
            JOIN members m ON m.conversation = i.log AND m.user_id = i.sender
            ORDER BY m.conversation, m.user_id FOR NO KEY UPDATE OF m;
    END IF;
    IF cardinality(p_log) <= 3 THEN
        FOR i IN 1 .. cardinality(p_log) LOOP
            o_outcome := 2; o_seq := NULL; o_message_no := NULL; o_at := NULL;
            PERFORM 1 FROM heads h WHERE h.log = p_log[i] FOR NO KEY UPDATE;
            IF NOT FOUND THEN RETURN NEXT; CONTINUE; END IF;
            stamp := coalesce(stamp, clock_timestamp());
            SELECT l.seq, l.message_no, l.created_at,
                CASE WHEN l.kind <> 0 OR l.fingerprint <> p_fingerprint[i] THEN 9 ELSE 4 END
            INTO o_seq, o_message_no, o_at, o_outcome
            FROM log l WHERE l.log = p_log[i] AND l.sender = p_sender[i] AND l.dedupe = p_dedupe[i];
            IF NOT (FOUND AND p_retried) THEN
                o_outcome := CASE
                    WHEN p_must_be_member[i] AND NOT EXISTS (
                        SELECT FROM members m WHERE m.conversation = p_log[i] AND m.user_id = p_sender[i]) THEN 1
                    WHEN p_must_be_member[i] AND EXISTS (SELECT FROM blocks b WHERE b.blocked = p_sender[i])
                        AND is_blocked_in_direct(p_log[i], p_sender[i]) THEN 8
                    WHEN o_outcome IS NOT NULL THEN o_outcome
                    WHEN p_reply_to[i] IS NOT NULL AND NOT EXISTS (
                        SELECT FROM log t WHERE t.log = p_log[i] AND t.seq = p_reply_to[i] AND t.kind = 0) THEN 3
                    ELSE 0
                END;
            END IF;
            IF o_outcome = 0 THEN
                UPDATE heads h SET seq = h.seq + 1, message_no = h.message_no + 1, updated_at = stamp
                WHERE h.log = p_log[i] RETURNING h.seq, h.message_no, h.updated_at INTO o_seq, o_message_no, o_at;
                INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content,
                    target, subject, flag, created_at, data, fingerprint)
                VALUES (p_log[i], o_seq, o_message_no, 0, p_sender[i], p_sender_name[i], p_dedupe[i],
                    p_client_gave_id[i], p_content[i], p_reply_to[i], p_persona[i], p_is_ai[i], stamp, p_data[i],
                    p_fingerprint[i]);
                UPDATE members m SET read_seq = o_seq, read_no = o_message_no
                WHERE m.conversation = p_log[i] AND m.user_id = p_sender[i];
                IF FOUND THEN
                    UPDATE notifications n SET read_at = stamp
                    WHERE n.user_id = p_sender[i] AND n.conversation = p_log[i] AND n.read_at IS NULL
                        AND n.last_seq <= o_seq;
                END IF;
            END IF;
            RETURN NEXT;
        END LOOP;
        RETURN;
    END IF;
    stamp := clock_timestamp();
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT i.*, h.seq AS head, h.message_no AS head_no,
            old.seq AS old_seq, old.message_no AS old_no, old.created_at AS old_at,
            CASE
                WHEN h.log IS NULL THEN 2
                WHEN p_retried AND old.seq IS NOT NULL THEN known.outcome
                -- With EXISTS, a plan may read all members, blocks and messages into a table, to look the few rows up there.
                WHEN i.must_be_member AND (
                    SELECT 1 FROM members m WHERE m.conversation = i.log AND m.user_id = i.sender) IS NULL THEN 1
                WHEN i.must_be_member AND (SELECT 1 FROM blocks b WHERE b.blocked = i.sender LIMIT 1) IS NOT NULL
                    AND is_blocked_in_direct(i.log, i.sender) THEN 8
                WHEN old.seq IS NOT NULL THEN known.outcome
                WHEN i.reply_to IS NOT NULL AND (
                    SELECT 1 FROM log t WHERE t.log = i.log AND t.seq = i.reply_to AND t.kind = 0) IS NULL THEN 3
                ELSE 0
            END AS outcome
        FROM unnest(p_log, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_must_be_member, p_content,
                p_reply_to, p_is_ai, p_persona, p_data, p_fingerprint)
            WITH ORDINALITY AS i (log, sender, sender_name, dedupe, client_gave_id, must_be_member, content, reply_to,
                is_ai, persona, data, fingerprint, place)
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
            subject, flag, created_at, data, fingerprint)
        SELECT n.log, n.head + n.nth, n.head_no + n.nth, 0, n.sender, n.sender_name, n.dedupe, n.client_gave_id,
            n.content, n.reply_to, n.persona, n.is_ai, stamp, n.data, n.fingerprint
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

-- As before. The plan of a function in SQL would be made again at each call.
CREATE OR REPLACE FUNCTION messages_between(p_conversation text, p_first bigint, p_last bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN greatest(0,
        coalesce((SELECT message_no FROM log WHERE log = p_conversation AND seq <= p_last ORDER BY seq DESC LIMIT 1), 0)
        - coalesce((SELECT message_no FROM log WHERE log = p_conversation AND seq < p_first ORDER BY seq DESC LIMIT 1), 0)
        - (SELECT count(*) FROM (SELECT FROM log WHERE log = p_conversation AND kind = 2
            AND target BETWEEN p_first AND p_last LIMIT 10000) deletions));
END
$$;

-- As before.
CREATE OR REPLACE FUNCTION finish_notification_posts(p_done bigint[], p_later bigint[], p_seconds double precision[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM notification_posts WHERE id = ANY (p_done);
    UPDATE notification_posts p SET due = clock_timestamp() + make_interval(secs => l.seconds)
    FROM unnest(p_later, p_seconds) AS l (id, seconds) WHERE p.id = l.id;
END
$$;

-- As before.
CREATE OR REPLACE FUNCTION give_notice(p_node text, p_seconds double precision, p_logs text[], p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO alone SELECT p_node, clock_timestamp() + make_interval(secs => p_seconds) WHERE p_seconds > 0
    ON CONFLICT (node) DO UPDATE SET until = excluded.until;
    INSERT INTO notices SELECT log, seq, clock_timestamp() FROM unnest(p_logs, p_seqs) AS n (log, seq) ORDER BY log COLLATE "C"
    ON CONFLICT (log) DO UPDATE SET seq = greatest(notices.seq, excluded.seq), at = excluded.at;
END
$$;
