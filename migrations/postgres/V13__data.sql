-- A message may carry JSON beside its text. It is text and not jsonb, which would change numbers and the order of keys. The
-- functions of the version before stay for its nodes, while they are replaced.
ALTER TABLE log ADD COLUMN data text;
COMMENT ON COLUMN log.data IS
    'JSON beside the text of a message, as its sender wrote it. Of an edit: NULL keeps the data of its message, and ''null'' removes it';

-- A deletion empties the texts of the message and of its edits. It removes their data with them, whichever function does it.
CREATE FUNCTION forget_data() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    new.data := NULL;
    RETURN new;
END
$$;
CREATE TRIGGER message_deleted BEFORE UPDATE OF content ON log
FOR EACH ROW WHEN (old.data IS NOT NULL AND (new.deleted OR new.kind = 1)) EXECUTE FUNCTION forget_data();

-- As before, with the data of each message.
CREATE FUNCTION append_messages(
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

-- As the function of the same name without p_data, and changes the data of an edited message.
CREATE FUNCTION append_change(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_authority smallint, p_content text, p_target bigint, p_subject text, p_flag boolean, p_data text, p_retried boolean,
    p_fingerprint bigint
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz, o_inbox_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT a.o_outcome, a.o_seq, a.o_message_no, a.o_at, a.o_inbox_seq
    INTO o_outcome, o_seq, o_message_no, o_at, o_inbox_seq
    FROM append_change(p_log, p_kind, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_authority, p_content,
        p_target, p_subject, p_flag, p_retried, p_fingerprint) a;
    IF o_outcome = 0 AND p_data IS NOT NULL THEN
        UPDATE log SET data = CASE seq WHEN o_seq THEN p_data ELSE nullif(p_data, 'null') END
        WHERE log = p_log AND seq IN (p_target, o_seq);
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION append_messages(text[], text[], text[], text[], boolean[], boolean[], text[], bigint[], boolean[], text[], text[], boolean, bigint[]) IS
    'o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions, 8 may not be added or reached, 9 id used for another command';
COMMENT ON FUNCTION append_change(text, smallint, text, text, text, boolean, smallint, text, bigint, text, boolean, text, boolean, bigint) IS
    'p_authority: 0 member, 1 admin, 2 system. o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions, 8 may not be added or reached, 9 id used for another command';
