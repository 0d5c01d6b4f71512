-- A sender's rights are judged before earlier appends, users may block each other, and a membership that ended is not
-- begun again by everybody. The functions of the version before stay for its nodes, while they are replaced.

-- user_id does not want to hear from the user in blocked.
CREATE TABLE blocks (
    user_id text COLLATE "C" NOT NULL,
    blocked text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, blocked)
);
CREATE INDEX blocks_by_blocked ON blocks (blocked);

-- How the last membership of a user in a conversation ended. The row goes when the user is a member again.
CREATE TABLE former_members (
    conversation text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    ending smallint NOT NULL,
    ended_at timestamptz NOT NULL,
    PRIMARY KEY (conversation, user_id)
);
COMMENT ON COLUMN former_members.ending IS '0 left, 1 removed';
COMMENT ON COLUMN log.subject IS 'The user, conversation or reaction an entry is about. Of a message: the persona that must answer';

-- True if the log is a direct conversation whose other member blocks the sender. The first condition is one look into an
-- index, and false for nearly every sender.
CREATE FUNCTION is_blocked_in_direct(p_log text, p_sender text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM blocks WHERE blocked = p_sender)
        AND EXISTS (SELECT FROM conversations WHERE id = p_log AND direct_key IS NOT NULL)
        AND EXISTS (SELECT FROM members m JOIN blocks b ON b.user_id = m.user_id AND b.blocked = p_sender
            WHERE m.conversation = p_log);
END
$$;

-- True if the sender may add the user. A user who is a member already may always be added again, since that changes nothing.
CREATE FUNCTION may_add(p_log text, p_sender text, p_user text, p_authority smallint) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    ended smallint;
BEGIN
    IF p_authority = 1 OR EXISTS (SELECT FROM members WHERE conversation = p_log AND user_id = p_user) THEN
        RETURN true;
    END IF;
    SELECT ending INTO ended FROM former_members WHERE conversation = p_log AND user_id = p_user;
    IF p_authority = 2 THEN RETURN ended IS DISTINCT FROM 1; END IF;
    IF EXISTS (SELECT FROM blocks WHERE user_id = p_user AND blocked = p_sender) THEN RETURN false; END IF;
    RETURN ended IS NULL OR EXISTS (SELECT FROM conversations WHERE id = p_log AND created_by = p_sender);
END
$$;

-- As before, with the persona that a message asks. The sender's rights are judged before earlier appends, unless p_retried
-- says that an earlier try may have stored some of the batch: what it stored keeps its result, whatever happened since.
CREATE FUNCTION append_messages(
    p_log text[], p_sender text[], p_sender_name text[], p_dedupe text[], p_client_gave_id boolean[],
    p_must_be_member boolean[], p_content text[], p_reply_to bigint[], p_is_ai boolean[], p_persona text[],
    p_retried boolean
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
                WHEN p_retried AND old.seq IS NOT NULL THEN 4
                WHEN i.must_be_member AND NOT EXISTS (
                    SELECT FROM members m WHERE m.conversation = i.log AND m.user_id = i.sender) THEN 1
                WHEN i.must_be_member AND is_blocked_in_direct(i.log, i.sender) THEN 8
                WHEN old.seq IS NOT NULL THEN 4
                WHEN i.reply_to IS NOT NULL AND NOT EXISTS (
                    SELECT FROM log t WHERE t.log = i.log AND t.seq = i.reply_to AND t.kind = 0) THEN 3
                ELSE 0
            END AS outcome
        FROM unnest(p_log, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_must_be_member, p_content,
                p_reply_to, p_is_ai, p_persona)
            WITH ORDINALITY AS i (log, sender, sender_name, dedupe, client_gave_id, must_be_member, content, reply_to,
                is_ai, persona, place)
        LEFT JOIN heads h ON h.log = i.log
        LEFT JOIN log old ON old.log = i.log AND old.sender = i.sender AND old.dedupe = i.dedupe
    ), numbered AS MATERIALIZED (
        SELECT j.*, count(*) FILTER (WHERE j.outcome = 0) OVER (PARTITION BY j.log ORDER BY j.place) AS nth
        FROM judged j
    ), inserted AS (
        INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target,
            subject, flag, created_at)
        SELECT n.log, n.head + n.nth, n.head_no + n.nth, 0, n.sender, n.sender_name, n.dedupe, n.client_gave_id,
            n.content, n.reply_to, n.persona, n.is_ai, stamp
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

-- Judges the sender's rights, then appends as the function of the same name without p_retried does, and records how
-- memberships end. p_retried as for messages.
CREATE FUNCTION append_change(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_authority smallint, p_content text, p_target bigint, p_subject text, p_flag boolean, p_retried boolean
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz, o_inbox_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    IF NOT FOUND THEN o_outcome := 2; RETURN NEXT; RETURN; END IF;
    IF NOT (p_retried AND EXISTS (SELECT FROM log WHERE log = p_log AND sender = p_sender AND dedupe = p_dedupe)) THEN
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
    SELECT a.o_outcome, a.o_seq, a.o_message_no, a.o_at, a.o_inbox_seq
    INTO o_outcome, o_seq, o_message_no, o_at, o_inbox_seq
    FROM append_change(p_log, p_kind, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_authority, p_content,
        p_target, p_subject, p_flag) a;
    IF o_outcome = 0 AND p_kind = 4 THEN
        DELETE FROM former_members WHERE conversation = p_log AND user_id = p_subject;
    ELSIF o_outcome = 0 AND p_kind = 5 THEN
        INSERT INTO former_members (conversation, user_id, ending, ended_at)
        VALUES (p_log, p_subject, CASE WHEN p_subject = p_sender THEN 0 ELSE 1 END, o_at)
        ON CONFLICT (conversation, user_id) DO UPDATE SET ending = excluded.ending, ended_at = excluded.ended_at;
    END IF;
    RETURN NEXT;
END
$$;

-- Blocks a user, unless p_user blocks p_limit users already. True if the block stands.
CREATE FUNCTION block_user(p_user text, p_blocked text, p_limit bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (SELECT FROM blocks WHERE user_id = p_user AND blocked = p_blocked) THEN RETURN true; END IF;
    IF (SELECT count(*) FROM (SELECT FROM blocks WHERE user_id = p_user LIMIT p_limit) b) >= p_limit THEN
        RETURN false;
    END IF;
    INSERT INTO blocks (user_id, blocked) VALUES (p_user, p_blocked) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

COMMENT ON FUNCTION append_messages(text[], text[], text[], text[], boolean[], boolean[], text[], bigint[], boolean[], text[], boolean) IS
    'o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions, 8 may not be added or reached';
COMMENT ON FUNCTION append_change(text, smallint, text, text, text, boolean, smallint, text, bigint, text, boolean, boolean) IS
    'p_authority: 0 member, 1 admin, 2 system. o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions, 8 may not be added or reached';
