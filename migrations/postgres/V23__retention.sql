-- Retention: entries that are older than they are kept are removed from the beginning of their log. What remains of a log has no
-- gaps, and its head never goes back. The functions of the version before may be called by its nodes while they are replaced.

-- Up to where a log was removed, and the number of messages among what was removed.
ALTER TABLE heads ADD COLUMN removed_seq bigint NOT NULL DEFAULT 0, ADD COLUMN removed_no bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN heads.removed_seq IS 'The entries up to this seq were removed; what is kept begins after it';
COMMENT ON COLUMN heads.removed_no IS 'Number of messages up to removed_seq';

ALTER TABLE conversations ADD COLUMN retention_days integer CHECK (retention_days >= 0);
COMMENT ON COLUMN conversations.retention_days IS
    'Entries are kept for this many days; 0: for ever. NULL: as RETENTION_DAYS says';
CREATE INDEX conversations_retained ON conversations (id) WHERE retention_days > 0;

-- Finds the notifications about removed messages. On a large database, make this index before the upgrade: CREATE INDEX
-- CONCURRENTLY with the same name and columns. Notifications wait while it is made here.
CREATE INDEX IF NOT EXISTS notifications_by_conversation ON notifications (conversation, last_seq);

-- Work that one node does for all. A row with a time needs no session, so it holds behind a pooler and over a failover.
CREATE TABLE upkeep (
    job text COLLATE "C" PRIMARY KEY,
    -- The process that does it, until this time unless it renews the row.
    holder text NOT NULL,
    held_until timestamptz NOT NULL,
    -- When it was last done to its end.
    done_at timestamptz
);

-- Takes a job for p_seconds, or renews it, if it was not done within p_every seconds. Returns a row in any case: whether the
-- process has it.
CREATE FUNCTION take_upkeep(p_job text, p_holder text, p_seconds double precision, p_every double precision)
RETURNS TABLE (o_held boolean, o_at timestamptz, o_done_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    o_at := clock_timestamp();
    INSERT INTO upkeep AS u (job, holder, held_until) VALUES (p_job, p_holder, o_at + make_interval(secs => p_seconds))
    ON CONFLICT (job) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
        WHERE (u.holder = p_holder OR u.held_until <= o_at)
            AND (u.done_at IS NULL OR u.done_at <= o_at - make_interval(secs => p_every))
    RETURNING u.done_at INTO o_done_at;
    o_held := FOUND;
    IF NOT FOUND THEN
        SELECT u.done_at INTO o_done_at FROM upkeep u WHERE u.job = p_job;
    END IF;
    RETURN NEXT;
END
$$;

-- Removes entries that were stored before their log's time in p_before, from the beginning of each log, at most p_limit. With
-- them go their reactions, what the search index has of them, and notifications that are about nothing else. The logs are
-- conversations, or inboxes, never both, and in byte order: that is the order of locks. A notification that another transaction
-- has locked is left for the next time, because nothing may be waited for here that comes before a head. A row for each log from
-- which something was removed; o_more: the limit ended it.
CREATE FUNCTION remove_aged(p_logs text[], p_before timestamptz[], p_limit bigint)
RETURNS TABLE (o_log text, o_removed bigint, o_more boolean)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    remaining bigint := p_limit;
    head heads%ROWTYPE;
    upto bigint;
    upto_no bigint;
    young bigint;
BEGIN
    FOR i IN 1 .. cardinality(p_logs) LOOP
        EXIT WHEN remaining <= 0;
        SELECT * INTO head FROM heads h WHERE h.log = p_logs[i] FOR NO KEY UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT min(n.seq) FILTER (WHERE n.created_at >= p_before[i]), max(n.seq) INTO young, upto FROM (
            SELECT l.seq, l.created_at FROM log l WHERE l.log = p_logs[i] AND l.seq > head.removed_seq
            ORDER BY l.seq LIMIT remaining
        ) n;
        upto := coalesce(young - 1, upto);
        CONTINUE WHEN upto IS NULL OR upto <= head.removed_seq;
        SELECT l.message_no INTO upto_no FROM log l WHERE l.log = p_logs[i] AND l.seq <= upto ORDER BY l.seq DESC LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        UPDATE heads h SET removed_seq = upto, removed_no = upto_no WHERE h.log = p_logs[i];
        DELETE FROM log l WHERE l.log = p_logs[i] AND l.seq <= upto;
        GET DIAGNOSTICS o_removed = ROW_COUNT;
        o_log := p_logs[i];
        o_more := young IS NULL AND o_removed >= remaining;
        remaining := remaining - o_removed;
        IF p_logs[i] NOT LIKE '~%' THEN
            DELETE FROM reactions r WHERE r.log = p_logs[i] AND r.seq <= upto;
            DELETE FROM segments s WHERE s.log = p_logs[i] AND s.last <= upto;
            UPDATE segments s SET words = NULL, first = upto + 1
            WHERE s.log = p_logs[i] AND s.last > upto AND s.last < upto + 512 AND s.first <= upto;
            PERFORM remove_notifications(p_logs[i], upto);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Removes notifications that are only about removed messages, and shortens those that are about others too.
CREATE FUNCTION remove_notifications(p_conversation text, p_upto bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
AS $$
DECLARE
    gone bigint[];
BEGIN
    SELECT array_agg(n.id) INTO gone FROM (
        SELECT id FROM notifications WHERE conversation = p_conversation AND last_seq <= p_upto FOR UPDATE SKIP LOCKED
    ) n;
    DELETE FROM notification_posts p USING (
        SELECT id FROM notification_posts WHERE id = ANY (gone) FOR UPDATE SKIP LOCKED
    ) waiting WHERE p.id = waiting.id;
    DELETE FROM notifications n
    WHERE n.id = ANY (gone) AND NOT EXISTS (SELECT FROM notification_posts p WHERE p.id = n.id);
    UPDATE notifications n SET from_seq = p_upto + 1, count = messages_between(p_conversation, p_upto + 1, n.last_seq)
    FROM (
        SELECT id FROM notifications WHERE conversation = p_conversation AND last_seq > p_upto AND from_seq <= p_upto
        FOR UPDATE SKIP LOCKED
    ) split WHERE n.id = split.id;
END
$$;

-- As before. Messages that were removed don't count.
CREATE OR REPLACE FUNCTION messages_between(p_conversation text, p_first bigint, p_last bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    removed heads%ROWTYPE;
BEGIN
    SELECT * INTO removed FROM heads WHERE log = p_conversation;
    RETURN greatest(0,
        coalesce((SELECT message_no FROM log WHERE log = p_conversation AND seq <= p_last ORDER BY seq DESC LIMIT 1),
            removed.removed_no, 0)
        - coalesce((SELECT message_no FROM log WHERE log = p_conversation AND seq < p_first ORDER BY seq DESC LIMIT 1),
            removed.removed_no, 0)
        - (SELECT count(*) FROM (SELECT FROM log WHERE log = p_conversation AND kind = 2
            AND target BETWEEN greatest(p_first, removed.removed_seq + 1) AND p_last LIMIT 10000) deletions));
END
$$;

-- As before. What was removed needs no segment.
CREATE OR REPLACE FUNCTION add_token_segment(
    p_log text, p_first bigint, p_last bigint, p_newest timestamptz, p_texts bigint, p_words text[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    removed bigint;
BEGIN
    SELECT removed_seq INTO removed FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    IF p_texts <> (SELECT coalesce(sum(hashtext(content)::bigint), 0) FROM log
        WHERE log = p_log AND seq BETWEEN p_first AND p_last AND kind = 0) THEN
        RETURN false;
    END IF;
    UPDATE segments SET words = array_to_tsvector(p_words)
    WHERE log = p_log AND last = p_last AND first = p_first AND words IS NULL;
    IF NOT FOUND THEN
        INSERT INTO segments (log, last, newest, first, words)
        SELECT p_log, p_last, p_newest, p_first, array_to_tsvector(p_words)
        WHERE p_first = greatest((SELECT coalesce(max(last), 0) FROM segments WHERE log = p_log), removed) + 1;
    END IF;
    RETURN FOUND;
END
$$;
