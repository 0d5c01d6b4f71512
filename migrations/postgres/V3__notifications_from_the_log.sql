-- What a run of notifications holds is read from the log, so that it is right whatever order nodes tell of it in, and
-- however often. The older notify_users stays for nodes of the version before, while they are replaced.

-- How far a user was told.
CREATE INDEX notifications_told ON notifications (user_id, conversation, last_seq);

-- Notes that messages from p_first to p_last wait for each user: opens a run, and tells the inbox, or widens the one that
-- is open. Passed over: who is no member, what they read, and what a run held that they put away. A row for each run that
-- was opened.
CREATE FUNCTION notify_users(p_conversation text, p_first bigint, p_last bigint, p_users text[])
RETURNS TABLE (o_user text, o_from bigint, o_inbox_seq bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    run notifications%ROWTYPE;
    open boolean;
    known bigint;
BEGIN
    o_at := clock_timestamp();
    FOR o_user IN SELECT DISTINCT u COLLATE "C" FROM unnest(p_users) u ORDER BY 1 LOOP
        -- Against a read mark, and against whoever reads the run: they come before all of this, or after it.
        SELECT read_seq INTO known FROM members
        WHERE conversation = p_conversation AND user_id = o_user FOR NO KEY UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT * INTO run FROM notifications
        WHERE user_id = o_user AND conversation = p_conversation AND read_at IS NULL FOR NO KEY UPDATE;
        open := FOUND;
        SELECT greatest(known, max(last_seq)) INTO known FROM notifications
        WHERE user_id = o_user AND conversation = p_conversation AND read_at IS NOT NULL;
        SELECT seq INTO o_from FROM log
        WHERE log = p_conversation AND seq >= greatest(p_first, known + 1) AND seq <= p_last AND kind = 0
        ORDER BY seq LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        run.from_seq := least(run.from_seq, o_from);
        run.last_seq := greatest(run.last_seq, p_last);
        SELECT max(message_no) - min(message_no) + 1 INTO run.count FROM log
        WHERE log = p_conversation AND seq IN (run.from_seq, run.last_seq);
        IF open THEN
            UPDATE notifications SET from_seq = run.from_seq, last_seq = run.last_seq, count = run.count WHERE id = run.id;
        ELSE
            INSERT INTO notifications (user_id, conversation, from_seq, last_seq, count, created_at)
            VALUES (o_user, p_conversation, run.from_seq, run.last_seq, run.count, o_at);
            o_inbox_seq := append_to_inbox(o_user, 8::smallint, p_conversation, o_from, o_user, o_user, o_at);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- Moves a member's marks forward, and ends the run that was read by it. The second statement sees a run that was opened
-- while the first one waited. A row where anything moved.
CREATE FUNCTION move_marks(p_conversation text, p_user text, p_delivered bigint, p_read bigint)
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
    RETURNING delivered_seq, read_seq INTO o_delivered, o_read;
    IF NOT FOUND THEN RETURN; END IF;
    UPDATE notifications SET read_at = clock_timestamp()
    WHERE user_id = p_user AND conversation = p_conversation AND read_at IS NULL AND last_seq <= o_read;
    RETURN NEXT;
END
$$;
