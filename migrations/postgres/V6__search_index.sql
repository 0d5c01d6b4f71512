-- The search index: the words of runs of messages, built by the nodes after the commit. An append writes nothing here.
-- Messages after the last segment of a log are searched one by one, so that a message is found as soon as it is stored.

CREATE TABLE segments (
    log text COLLATE "C" NOT NULL,
    -- The newest entry of the segment, and its time.
    last bigint NOT NULL,
    newest timestamptz NOT NULL,
    first bigint NOT NULL,
    -- NULL after a message of the segment was edited or deleted, until a node builds it again: a search reads such a
    -- segment one by one. So no word of a deleted message stays here.
    words tsvector,
    PRIMARY KEY (log, last)
);
CREATE INDEX segments_outdated ON segments (log) WHERE words IS NULL;
COMMENT ON TABLE segments IS 'The search index. Derived from log: it may be emptied, and nodes build it again';

-- The function of a trigger: empties the segment of a message whose text has changed.
CREATE FUNCTION empty_segment() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE segments SET words = NULL
    WHERE log = new.log AND last >= new.seq AND first <= new.seq AND words IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_changed AFTER UPDATE OF content ON log
FOR EACH ROW WHEN (new.kind = 0) EXECUTE FUNCTION empty_segment();

-- Adds the next segment of a log, or fills an empty one. p_texts is the sum of hashtext over the texts that the words
-- come from: if it differs now, nothing is added. The lock keeps a change, and another node's segment, from coming
-- between. Returns whether the segment was added.
CREATE FUNCTION add_segment(
    p_log text, p_first bigint, p_last bigint, p_newest timestamptz, p_texts bigint, p_words text[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
BEGIN
    PERFORM 1 FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    IF p_texts <> (SELECT coalesce(sum(hashtext(content)::bigint), 0) FROM log
        WHERE log = p_log AND seq BETWEEN p_first AND p_last AND kind = 0) THEN
        RETURN false;
    END IF;
    UPDATE segments SET words = array_to_tsvector(p_words)
    WHERE log = p_log AND last = p_last AND first = p_first AND words IS NULL;
    IF NOT FOUND THEN
        INSERT INTO segments (log, last, newest, first, words)
        SELECT p_log, p_last, p_newest, p_first, array_to_tsvector(p_words)
        WHERE p_first = (SELECT coalesce(max(last), 0) + 1 FROM segments WHERE log = p_log);
    END IF;
    RETURN FOUND;
END
$$;

-- Finds the messages that match p_query, newest first: in p_log, or in the p_conversations most recently active
-- conversations of p_user. A segment is read only if its words match p_filter. Entries that are not in a segment yet are
-- searched down to p_unindexed below the head. The p_patterns exclude most messages cheaply; only the remaining ones are
-- split into words.
CREATE FUNCTION search_messages(
    p_user text, p_log text, p_query text, p_filter text, p_patterns text[], p_limit bigint, p_offset bigint,
    p_unindexed bigint, p_conversations bigint
) RETURNS SETOF log
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    query CONSTANT tsquery := to_tsquery('simple', p_query);
    filter CONSTANT tsquery := p_filter::tsquery;
    wanted CONSTANT bigint := p_limit + p_offset;
    logs text[] := '{}';
    seqs bigint[] := '{}';
    times timestamptz[] := '{}';
    -- Older messages are not among the wanted ones.
    cutoff timestamptz := '-infinity';
    head record;
    part record;
    hit record;
    found_here bigint;
BEGIN
    FOR head IN
        SELECT h.log, h.seq, h.updated_at FROM heads h WHERE h.log = p_log
        UNION ALL (SELECT h.log, h.seq, h.updated_at FROM members m JOIN heads h ON h.log = m.conversation
            WHERE m.user_id = p_user ORDER BY h.updated_at DESC LIMIT p_conversations)
    LOOP
        EXIT WHEN head.updated_at < cutoff;
        found_here := 0;
        <<parts>>
        FOR part IN
            SELECT greatest(coalesce(max(s.last), 0), head.seq - p_unindexed) + 1 AS first, head.seq AS last,
                head.updated_at AS newest
            FROM segments s WHERE s.log = head.log
            UNION ALL (SELECT s.first, s.last, s.newest FROM segments s
                WHERE s.log = head.log AND (s.words IS NULL OR s.words @@ filter) ORDER BY s.last DESC)
        LOOP
            EXIT WHEN part.newest < cutoff;
            FOR hit IN
                SELECT l.seq, l.created_at FROM log l
                WHERE l.log = head.log AND l.seq BETWEEN part.first AND part.last AND l.kind = 0 AND NOT l.deleted
                    AND l.created_at >= cutoff AND lower(l.content) LIKE ALL (p_patterns) AND words_of(l.content) @@ query
                ORDER BY l.seq DESC
            LOOP
                logs := logs || head.log;
                seqs := seqs || hit.seq;
                times := times || hit.created_at;
                found_here := found_here + 1;
                EXIT parts WHEN found_here >= wanted;
            END LOOP;
        END LOOP;
        -- As soon as enough are found, older ones are out. Later it suffices to sort now and then.
        IF cardinality(seqs) >= 2 * wanted OR cutoff = '-infinity' AND cardinality(seqs) >= wanted THEN
            SELECT array_agg(f.log), array_agg(f.seq), array_agg(f.at), min(f.at) INTO logs, seqs, times, cutoff
            FROM (SELECT u.log, u.seq, u.at FROM unnest(logs, seqs, times) AS u (log, seq, at)
                ORDER BY u.at DESC, u.log, u.seq DESC LIMIT wanted) f;
        END IF;
    END LOOP;
    RETURN QUERY SELECT l.* FROM unnest(logs, seqs) AS f (log, seq) JOIN log l ON l.log = f.log AND l.seq = f.seq
        ORDER BY l.created_at DESC, l.log, l.seq DESC LIMIT p_limit OFFSET p_offset;
END
$$;
