-- A repeated command is told from another one that reuses its id. The functions of the version before stay for its nodes,
-- while they are replaced.

ALTER TABLE log ADD COLUMN fingerprint bigint;
COMMENT ON COLUMN log.fingerprint IS
    'Hash of the command that stored the entry, if a client gave its id. NULL once the text is deleted, and in rows of earlier versions';

DROP FUNCTION append_messages(text[], text[], text[], text[], boolean[], boolean[], text[], bigint[], boolean[]);

-- As before, but an id that was used for another command is refused. Where a fingerprint is missing, the kind alone counts.
CREATE FUNCTION append_messages(
    p_log text[], p_sender text[], p_sender_name text[], p_dedupe text[], p_client_gave_id boolean[],
    p_must_be_member boolean[], p_content text[], p_reply_to bigint[], p_is_ai boolean[], p_persona text[],
    p_retried boolean, p_fingerprint bigint[]
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    stamp timestamptz;
BEGIN
    PERFORM 1 FROM heads h WHERE h.log = ANY (p_log) ORDER BY h.log COLLATE "C" FOR NO KEY UPDATE;
    stamp := clock_timestamp();
    RETURN QUERY
    WITH judged AS (
        SELECT i.*, h.seq AS head, h.message_no AS head_no,
            old.seq AS old_seq, old.message_no AS old_no, old.created_at AS old_at,
            CASE
                WHEN h.log IS NULL THEN 2
                WHEN p_retried AND old.seq IS NOT NULL THEN known.outcome
                WHEN i.must_be_member AND NOT EXISTS (
                    SELECT FROM members m WHERE m.conversation = i.log AND m.user_id = i.sender) THEN 1
                WHEN i.must_be_member AND is_blocked_in_direct(i.log, i.sender) THEN 8
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
    )
    SELECT n.outcome::smallint,
        CASE n.outcome WHEN 0 THEN n.head + n.nth ELSE n.old_seq END,
        CASE n.outcome WHEN 0 THEN n.head_no + n.nth ELSE n.old_no END,
        CASE n.outcome WHEN 0 THEN stamp ELSE n.old_at END
    FROM numbered n ORDER BY n.place;
END
$$;

CREATE OR REPLACE FUNCTION append_messages(
    p_log text[], p_sender text[], p_sender_name text[], p_dedupe text[], p_client_gave_id boolean[],
    p_must_be_member boolean[], p_content text[], p_reply_to bigint[], p_is_ai boolean[], p_persona text[],
    p_retried boolean
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM append_messages(p_log, p_sender, p_sender_name, p_dedupe, p_client_gave_id,
        p_must_be_member, p_content, p_reply_to, p_is_ai, p_persona, p_retried, NULL::bigint[]);
END
$$;

DROP FUNCTION append_change(text, smallint, text, text, text, boolean, smallint, text, bigint, text, boolean);

-- Appends one entry that is no message, judges the sender's rights first, and records how memberships end. p_retried and
-- p_fingerprint as for messages.
CREATE FUNCTION append_change(
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
            UPDATE log SET content = p_content, edited_at = o_at WHERE log = p_log AND seq = p_target;
        WHEN 2 THEN
            UPDATE log SET content = '', deleted = true, fingerprint = NULL WHERE log = p_log AND seq = p_target;
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
    IF p_kind > 2 AND NOT FOUND THEN o_outcome := 6; RETURN NEXT; RETURN; END IF;
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
        p_subject, p_flag, o_at, p_fingerprint);
    IF p_kind IN (4, 5) THEN
        o_inbox_seq := append_to_inbox(p_subject, (p_kind + 2)::smallint, p_log, head.seq, p_sender, p_sender_name, o_at);
    END IF;
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION append_change(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_authority smallint, p_content text, p_target bigint, p_subject text, p_flag boolean, p_retried boolean
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz, o_inbox_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM append_change(p_log, p_kind, p_sender, p_sender_name, p_dedupe, p_client_gave_id,
        p_authority, p_content, p_target, p_subject, p_flag, p_retried, NULL::bigint);
END
$$;

COMMENT ON FUNCTION append_messages(text[], text[], text[], text[], boolean[], boolean[], text[], bigint[], boolean[], text[], boolean, bigint[]) IS
    'o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions, 8 may not be added or reached, 9 id used for another command';
COMMENT ON FUNCTION append_change(text, smallint, text, text, text, boolean, smallint, text, bigint, text, boolean, boolean, bigint) IS
    'p_authority: 0 member, 1 admin, 2 system. o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions, 8 may not be added or reached, 9 id used for another command';
