-- Raises the error for a row that a trigger or a rule of the database kept from being written. Else it would be acked.
-- The callers write with RETURNING: under a rule, such a statement fails, and its plan is made again once the rule is gone.
CREATE FUNCTION refuse_lost_row(p_table text) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION 'a trigger or rule of the table % dropped a row that was to be written', p_table;
END
$$;

-- As before.
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
                    p_fingerprint[i])
                RETURNING seq INTO o_seq;
                IF NOT FOUND THEN PERFORM refuse_lost_row('log'); END IF;
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
        RETURNING 1
    ), moved AS (
        UPDATE heads h SET seq = h.seq + added.count, message_no = h.message_no + added.count, updated_at = stamp
        FROM (SELECT n.log, max(n.nth) AS count FROM numbered n WHERE n.outcome = 0 GROUP BY n.log) added
        WHERE h.log = added.log
        RETURNING 1
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
    SELECT CASE
            WHEN (SELECT count(*) FROM inserted) < (SELECT count(*) FROM numbered WHERE outcome = 0)
                THEN refuse_lost_row('log')
            WHEN (SELECT count(*) FROM moved) < (SELECT count(DISTINCT log) FROM numbered WHERE outcome = 0)
                THEN refuse_lost_row('heads')
            ELSE n.outcome
        END::smallint,
        CASE n.outcome WHEN 0 THEN n.head + n.nth ELSE n.old_seq END,
        CASE n.outcome WHEN 0 THEN n.head_no + n.nth ELSE n.old_no END,
        CASE n.outcome WHEN 0 THEN stamp ELSE n.old_at END
    FROM numbered n ORDER BY n.place;
END
$$;

-- As before.
CREATE OR REPLACE FUNCTION append_change(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_authority smallint, p_content text, p_target bigint, p_subject text, p_flag boolean, p_retried boolean,
    p_fingerprint bigint
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz, o_inbox_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head heads%ROWTYPE;
    old log%ROWTYPE;
    about log%ROWTYPE;
    stored boolean;
BEGIN
    SELECT * INTO head FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    IF NOT FOUND THEN o_outcome := 2; RETURN NEXT; RETURN; END IF;
    o_at := clock_timestamp();
    SELECT * INTO old FROM log WHERE log = p_log AND sender = p_sender AND dedupe = p_dedupe;
    stored := FOUND;
    IF NOT (p_retried AND stored) THEN
        IF p_authority = 0 THEN
            IF NOT EXISTS (SELECT FROM members WHERE conversation = p_log AND user_id = p_sender) THEN
                o_outcome := 1; RETURN NEXT; RETURN;
            END IF;
            IF p_kind IN (1, 3) AND is_blocked_in_direct(p_log, p_sender) THEN
                o_outcome := 8; RETURN NEXT; RETURN;
            END IF;
        END IF;
        IF p_kind = 4 AND NOT may_add(p_log, p_sender, p_subject, p_authority) THEN
            o_outcome := 8; RETURN NEXT; RETURN;
        END IF;
    END IF;
    IF stored THEN
        o_outcome := CASE WHEN old.kind <> p_kind OR old.fingerprint <> p_fingerprint THEN 9 ELSE 4 END;
        o_seq := old.seq; o_message_no := old.message_no; o_at := old.created_at;
        RETURN NEXT; RETURN;
    END IF;
    o_outcome := 0;
    IF p_kind IN (1, 2, 3) THEN
        SELECT * INTO about FROM log WHERE log = p_log AND seq = p_target AND kind = 0 AND NOT deleted;
        IF NOT FOUND THEN o_outcome := 3; RETURN NEXT; RETURN; END IF;
        IF p_kind <> 3 AND about.sender <> p_sender AND NOT (p_kind = 2 AND p_authority > 0) THEN
            o_outcome := 5; RETURN NEXT; RETURN;
        END IF;
    END IF;
    CASE p_kind
        WHEN 1 THEN
            UPDATE log SET content = p_content, edited_at = o_at WHERE log = p_log AND seq = p_target
            RETURNING seq INTO p_target;
            IF NOT FOUND THEN PERFORM refuse_lost_row('log'); END IF;
        WHEN 2 THEN
            UPDATE log SET content = '', deleted = true, fingerprint = NULL WHERE log = p_log AND seq = p_target
            RETURNING seq INTO p_target;
            IF NOT FOUND THEN PERFORM refuse_lost_row('log'); END IF;
            -- Earlier texts of it must not be read either, nor guessed from a fingerprint.
            UPDATE log SET content = '', fingerprint = NULL
            WHERE log = p_log AND seq > p_target AND kind = 1 AND target = p_target;
            DELETE FROM reactions WHERE log = p_log AND seq = p_target;
        WHEN 3 THEN
            IF p_flag THEN
                IF reactions_full(p_log, p_target, p_sender, p_subject) THEN
                    o_outcome := 7; RETURN NEXT; RETURN;
                END IF;
                INSERT INTO reactions (log, seq, user_id, emoji) VALUES (p_log, p_target, p_sender, p_subject)
                ON CONFLICT DO NOTHING;
            ELSE
                DELETE FROM reactions WHERE log = p_log AND seq = p_target AND user_id = p_sender AND emoji = p_subject;
            END IF;
        WHEN 4 THEN
            INSERT INTO users (id, name) VALUES (p_subject, p_subject) ON CONFLICT DO NOTHING;
            INSERT INTO members (conversation, user_id, joined_at, delivered_seq, read_seq, read_no)
            VALUES (p_log, p_subject, o_at, head.seq, head.seq, head.message_no) ON CONFLICT DO NOTHING;
        WHEN 5 THEN
            DELETE FROM members WHERE conversation = p_log AND user_id = p_subject;
    END CASE;
    IF p_kind > 2 AND NOT FOUND THEN
        IF p_kind = 3 AND p_flag <> EXISTS (SELECT FROM reactions
            WHERE log = p_log AND seq = p_target AND user_id = p_sender AND emoji = p_subject) THEN
            PERFORM refuse_lost_row('reactions');
        ELSIF p_kind > 3 AND (p_kind = 4) <> EXISTS (SELECT FROM members
            WHERE conversation = p_log AND user_id = p_subject) THEN
            PERFORM refuse_lost_row('members');
        END IF;
        o_outcome := 6; RETURN NEXT; RETURN;
    END IF;
    IF p_kind = 4 THEN
        DELETE FROM former_members WHERE conversation = p_log AND user_id = p_subject;
    ELSIF p_kind = 5 THEN
        INSERT INTO former_members (conversation, user_id, ending, ended_at)
        VALUES (p_log, p_subject, CASE WHEN p_subject = p_sender THEN 0 ELSE 1 END, o_at)
        ON CONFLICT (conversation, user_id) DO UPDATE SET ending = excluded.ending, ended_at = excluded.ended_at;
    END IF;
    UPDATE heads SET seq = seq + 1, updated_at = o_at WHERE log = p_log RETURNING seq, message_no INTO o_seq, o_message_no;
    INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, subject,
        flag, created_at, fingerprint)
    VALUES (p_log, o_seq, o_message_no, p_kind, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_content, p_target,
        p_subject, p_flag, o_at, p_fingerprint)
    RETURNING seq INTO o_seq;
    IF NOT FOUND THEN PERFORM refuse_lost_row('log'); END IF;
    IF p_kind IN (4, 5) THEN
        o_inbox_seq := append_to_inbox(p_subject, (p_kind + 2)::smallint, p_log, head.seq, p_sender, p_sender_name, o_at);
    END IF;
    RETURN NEXT;
END
$$;

-- As before.
CREATE OR REPLACE FUNCTION append_entry(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_content text, p_target bigint, p_subject text, p_flag boolean, p_at timestamptz
) RETURNS TABLE (o_seq bigint, o_message_no bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE heads SET seq = seq + 1, updated_at = p_at WHERE log = p_log RETURNING seq, message_no INTO o_seq, o_message_no;
    INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, subject,
        flag, created_at)
    VALUES (p_log, o_seq, o_message_no, p_kind, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_content,
        p_target, p_subject, p_flag, p_at)
    RETURNING seq INTO o_seq;
    IF NOT FOUND THEN PERFORM refuse_lost_row('log'); END IF;
    RETURN NEXT;
END
$$;
