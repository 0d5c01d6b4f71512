-- Threads: the replies to a message.
CREATE INDEX log_replies ON log (log, target, seq) WHERE kind = 0 AND target IS NOT NULL;

-- Search: the words of a text. What stands between words is made blank, so that addresses and names with dots fall apart
-- as words do in a query. No index: it would cost every append as much as the append itself.
CREATE FUNCTION words_of(p_content text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_tsvector('simple'::regconfig,
        translate(p_content, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', '                                '))
$$;

-- Archiving: a member puts a conversation out of sight.
ALTER TABLE members ADD COLUMN archived boolean NOT NULL DEFAULT false;

-- Notes that p_count messages, from p_first to p_last, wait for each user: opens a run, and tells the inbox, or counts on.
-- Who is no member or has read them is passed over. A row for each run that was opened.
DROP FUNCTION notify_users;
CREATE FUNCTION notify_users(p_conversation text, p_first bigint, p_last bigint, p_count bigint, p_users text[])
RETURNS TABLE (o_user text, o_inbox_seq bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    o_at := clock_timestamp();
    FOR o_user IN
        SELECT m.user_id FROM members m
        WHERE m.conversation = p_conversation AND m.user_id = ANY (p_users) AND m.read_seq < p_last ORDER BY 1
    LOOP
        -- Takes the row's lock also where these messages were counted before.
        UPDATE notifications SET
            count = count + CASE WHEN last_seq < p_last THEN p_count ELSE 0 END,
            last_seq = greatest(last_seq, p_last)
        WHERE user_id = o_user AND conversation = p_conversation AND read_at IS NULL;
        IF FOUND THEN CONTINUE; END IF;
        INSERT INTO notifications (user_id, conversation, from_seq, last_seq, count, created_at)
        VALUES (o_user, p_conversation, p_first, p_last, p_count, o_at) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            o_inbox_seq := append_to_inbox(o_user, 8::smallint, p_conversation, p_first, o_user, o_user, o_at);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
