-- Requests to the webhook of notifications wait in the store until the webhook accepts them, so that they outlive the node that
-- opened the notification. The older notify_users stays for nodes of the version before, while they are replaced.

-- due: when a node may take the request. Taking it moves due on; if that node dies, another one takes it then.
CREATE TABLE notification_posts (
    id bigint PRIMARY KEY,
    queued_at timestamptz NOT NULL,
    due timestamptz NOT NULL,
    tries integer NOT NULL DEFAULT 0
);
CREATE INDEX notification_posts_due ON notification_posts (due);
COMMENT ON COLUMN notification_posts.id IS 'The notification';

-- As the function of the same name with four parameters. A user's own and deleted messages open nothing; with p_undelivered
-- neither do those that the user received. A request to the webhook is queued for each run that was opened, while fewer than
-- p_queue wait; none if p_queue is 0. A row for each run that was opened.
CREATE FUNCTION notify_users(
    p_conversation text, p_first bigint, p_last bigint, p_users text[], p_undelivered boolean, p_queue bigint
) RETURNS TABLE (o_user text, o_from bigint, o_inbox_seq bigint, o_at timestamptz, o_queued boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    run notifications%ROWTYPE;
    open boolean;
    known bigint;
    room bigint;
BEGIN
    o_at := clock_timestamp();
    FOR o_user IN SELECT DISTINCT u COLLATE "C" FROM unnest(p_users) u ORDER BY 1 LOOP
        -- Against a read mark, and against whoever reads the run: they come before all of this, or after it.
        SELECT CASE WHEN p_undelivered THEN greatest(read_seq, delivered_seq) ELSE read_seq END INTO known FROM members
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
        run.from_seq := least(run.from_seq, o_from);
        run.last_seq := greatest(run.last_seq, p_last);
        SELECT max(message_no) - min(message_no) + 1 INTO run.count FROM log
        WHERE log = p_conversation AND seq IN (run.from_seq, run.last_seq);
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

-- Takes requests that are due, the longest due first, for p_seconds. o_message is the first message of the run that is not the
-- user's own; null if the run was read, or has no such message any more. o_expired: queued more than p_max_age seconds ago.
CREATE FUNCTION claim_notification_posts(p_limit bigint, p_seconds double precision, p_max_age double precision)
RETURNS TABLE (
    o_id bigint, o_user text, o_conversation text, o_from bigint, o_at timestamptz, o_tries integer, o_expired boolean,
    o_message bigint
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    stamp timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH ready AS MATERIALIZED (
        SELECT p.id FROM notification_posts p WHERE p.due <= stamp ORDER BY p.due LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE notification_posts p SET due = stamp + make_interval(secs => p_seconds), tries = p.tries + 1
        FROM ready WHERE p.id = ready.id RETURNING p.id, p.tries, p.queued_at
    )
    SELECT n.id, n.user_id, n.conversation, n.from_seq, n.created_at, c.tries,
        c.queued_at < stamp - make_interval(secs => p_max_age),
        CASE WHEN n.read_at IS NULL THEN (
            SELECT l.seq FROM log l
            WHERE l.log = n.conversation AND l.seq BETWEEN n.from_seq AND n.last_seq AND l.kind = 0
                AND l.sender <> n.user_id AND NOT l.deleted
            ORDER BY l.seq LIMIT 1) END
    FROM claimed c JOIN notifications n ON n.id = c.id;
END
$$;

-- Removes requests that are done, and lets others be taken again after the given seconds.
CREATE FUNCTION finish_notification_posts(p_done bigint[], p_later bigint[], p_seconds double precision[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
    DELETE FROM notification_posts WHERE id = ANY (p_done);
    UPDATE notification_posts p SET due = clock_timestamp() + make_interval(secs => l.seconds)
    FROM unnest(p_later, p_seconds) AS l (id, seconds) WHERE p.id = l.id;
$$;
