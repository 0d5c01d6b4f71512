-- The reactions on one message have bounds: 20 of one user, 50 different ones, 10,000 in all. src/store/values.rs has the
-- same numbers for SQLite.

-- True if a user may not add this reaction, because a bound of the message is reached. False if the user has it already.
CREATE FUNCTION reactions_full(p_log text, p_target bigint, p_user text, p_emoji text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    of_user bigint;
    known boolean;
BEGIN
    SELECT count(*), coalesce(bool_or(emoji = p_emoji), false) INTO of_user, known
    FROM reactions WHERE log = p_log AND seq = p_target AND user_id = p_user;
    IF known THEN RETURN false; END IF;
    IF of_user >= 20 THEN RETURN true; END IF;
    IF (SELECT count(*) FROM (SELECT FROM reactions WHERE log = p_log AND seq = p_target LIMIT 10000) r) >= 10000 THEN
        RETURN true;
    END IF;
    IF EXISTS (SELECT FROM reactions WHERE log = p_log AND seq = p_target AND emoji = p_emoji) THEN RETURN false; END IF;
    RETURN (SELECT count(DISTINCT emoji) FROM reactions WHERE log = p_log AND seq = p_target) >= 50;
END
$$;

-- As before, with outcome 7: too many reactions.
CREATE OR REPLACE FUNCTION append_change(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_authority smallint, p_content text, p_target bigint, p_subject text, p_flag boolean
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz, o_inbox_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head heads%ROWTYPE;
    about log%ROWTYPE;
BEGIN
    SELECT * INTO head FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    IF NOT FOUND THEN o_outcome := 2; RETURN NEXT; RETURN; END IF;
    o_at := clock_timestamp();
    SELECT * INTO about FROM log WHERE log = p_log AND sender = p_sender AND dedupe = p_dedupe;
    IF FOUND THEN
        o_outcome := 4; o_seq := about.seq; o_message_no := about.message_no; o_at := about.created_at;
        RETURN NEXT; RETURN;
    END IF;
    IF p_authority = 0 AND NOT EXISTS (SELECT FROM members WHERE conversation = p_log AND user_id = p_sender) THEN
        o_outcome := 1; RETURN NEXT; RETURN;
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
            UPDATE log SET content = '', deleted = true WHERE log = p_log AND seq = p_target;
            -- Earlier texts of it must not be read either.
            UPDATE log SET content = '' WHERE log = p_log AND seq > p_target AND kind = 1 AND target = p_target;
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
    SELECT e.o_seq, e.o_message_no INTO o_seq, o_message_no FROM append_entry(p_log, p_kind, p_sender, p_sender_name,
        p_dedupe, p_client_gave_id, p_content, p_target, p_subject, p_flag, o_at) e;
    IF p_kind IN (4, 5) THEN
        o_inbox_seq := append_to_inbox(p_subject, (p_kind + 2)::smallint, p_log, head.seq, p_sender, p_sender_name, o_at);
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION append_messages IS
    'o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions';
COMMENT ON FUNCTION append_change IS
    'p_authority: 0 member, 1 admin, 2 system. o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change, 7 too many reactions';
