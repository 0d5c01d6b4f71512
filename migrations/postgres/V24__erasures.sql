-- Users whose data is being erased, or was. A node does it in small steps, and another one goes on if it dies.
CREATE TABLE erasures (
    user_id text COLLATE "C" PRIMARY KEY,
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    -- The last log, in the order of names, from which the user's entries are erased.
    position text COLLATE "C",
    done_at timestamptz
);
CREATE INDEX erasures_pending ON erasures (requested_at) WHERE done_at IS NULL;

-- Replaces the sender's name in entries by the sender's id, and the emoji of reactions by p_emoji. An entry keeps place and time.
CREATE FUNCTION hide_author(p_log text, p_sender text, p_seqs bigint[], p_emoji text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM 1 FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    UPDATE log SET sender_name = sender, subject = CASE kind WHEN 3 THEN p_emoji ELSE subject END
    WHERE log = p_log AND seq = ANY (p_seqs) AND sender = p_sender;
END
$$;

-- Removes a user's notifications, at most p_limit. Returns their number. What another transaction has locked is left for the next
-- call.
CREATE FUNCTION erase_notifications(p_user text, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
AS $$
DECLARE
    gone bigint[];
BEGIN
    SELECT array_agg(n.id) INTO gone FROM (
        SELECT id FROM notifications WHERE user_id = p_user ORDER BY id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) n;
    DELETE FROM notification_posts p USING (
        SELECT id FROM notification_posts WHERE id = ANY (gone) FOR UPDATE SKIP LOCKED
    ) waiting WHERE p.id = waiting.id;
    DELETE FROM notifications n
    WHERE n.id = ANY (gone) AND NOT EXISTS (SELECT FROM notification_posts p WHERE p.id = n.id);
    RETURN coalesce(cardinality(gone), 0);
END
$$;
