-- Search finds texts without spaces between words, and either form of an accented letter: nodes compute the tokens of
-- segments, and compare candidate messages themselves, so that every store finds the same.

-- Segments with tokens of the earlier kind are searched one by one until a node has built them again.
UPDATE segments SET words = NULL WHERE words IS NOT NULL;

-- Nodes of the earlier version must not add segments with their tokens; their calls fail and are repeated by others.
ALTER FUNCTION add_segment(text, bigint, bigint, timestamptz, bigint, text[]) RENAME TO add_token_segment;

-- The conversations that a search covers, the most recently active one first, with the newest entry of each that is in a
-- segment, or the last one that is not searched.
CREATE FUNCTION search_heads(p_user text, p_log text, p_unindexed bigint, p_conversations bigint)
RETURNS TABLE (o_log text, o_head bigint, o_updated_at timestamptz, o_indexed bigint)
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT h.log, h.seq, h.updated_at,
        greatest((SELECT coalesce(max(s.last), 0) FROM segments s WHERE s.log = h.log), h.seq - p_unindexed)
    FROM (
        SELECT log, seq, updated_at FROM heads WHERE log = p_log
        UNION ALL (SELECT h.log, h.seq, h.updated_at FROM members m JOIN heads h ON h.log = m.conversation
            WHERE m.user_id = p_user ORDER BY h.updated_at DESC LIMIT p_conversations)
    ) h
    ORDER BY h.updated_at DESC, h.log
$$;

-- The next p_limit messages that may match, in the order of the logs, the newest first: of each log those up to p_upto
-- that are in no segment (after p_indexed), or in a segment whose tokens match p_filter. None is older than p_cutoff.
CREATE FUNCTION search_candidates(
    p_logs text[], p_indexed bigint[], p_upto bigint[], p_filter text, p_cutoff timestamptz, p_limit bigint
) RETURNS TABLE (o_log text, o_seq bigint, o_at timestamptz, o_content text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    filter CONSTANT tsquery := p_filter::tsquery;
    remaining bigint := p_limit;
    returned bigint;
    head record;
    part record;
BEGIN
    FOR head IN SELECT u.log, u.indexed, u.upto FROM unnest(p_logs, p_indexed, p_upto) AS u (log, indexed, upto) LOOP
        FOR part IN
            SELECT head.indexed + 1 AS first, head.upto AS last
            -- Segments have at most 512 entries, so the second condition lets the scan begin near p_upto.
            UNION ALL (SELECT s.first, least(s.last, head.upto, head.indexed) FROM segments s
                WHERE s.log = head.log AND s.last < head.upto + 512 AND s.first <= head.upto AND s.newest >= p_cutoff
                    AND (s.words IS NULL OR s.words @@ filter) ORDER BY s.last DESC)
        LOOP
            RETURN QUERY SELECT l.log, l.seq, l.created_at, l.content FROM log l
                WHERE l.log = head.log AND l.seq BETWEEN part.first AND part.last AND l.kind = 0 AND NOT l.deleted
                    AND l.created_at >= p_cutoff
                ORDER BY l.seq DESC LIMIT remaining;
            GET DIAGNOSTICS returned = ROW_COUNT;
            remaining := remaining - returned;
            IF remaining <= 0 THEN RETURN; END IF;
        END LOOP;
    END LOOP;
END
$$;
