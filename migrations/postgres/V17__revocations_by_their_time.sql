-- A token without an iat is revoked by the time at which a revocation was made, whatever second the revocation names. So
-- revocations are removed by that time, and a repeat that comes half an hour later or more is recorded anew.
CREATE OR REPLACE FUNCTION restrict_user(
    p_kind smallint, p_user text, p_token text, p_issued_until bigint, p_by text, p_limit bigint
) RETURNS TABLE (
    o_outcome smallint, o_id bigint, o_kind smallint, o_user text, o_token text, o_issued_until bigint,
    o_at timestamptz, o_by text
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    old restriction_changes;
    stamp timestamptz;
    until_second bigint;
    repeated boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(5861215838431560786);
    stamp := clock_timestamp();
    until_second := CASE WHEN p_kind = 1 THEN coalesce(p_issued_until, floor(extract(epoch FROM stamp))::bigint) END;
    SELECT * INTO old FROM restriction_changes r
    WHERE r.user_id = p_user AND r.standing AND r.kind = CASE p_kind WHEN 4 THEN 3 ELSE p_kind END
        AND (p_kind <> 2 OR r.token = p_token);
    repeated := old.made_at > stamp - interval '30 minutes';
    IF (p_kind = 1 AND old.issued_until >= until_second AND repeated)
        OR (p_kind = 2 AND repeated)
        OR (p_kind = 3 AND old.id IS NOT NULL)
        OR (p_kind = 4 AND old.id IS NULL)
    THEN
        RETURN QUERY SELECT 1::smallint, old.id, old.kind, old.user_id, old.token, old.issued_until, old.made_at,
            old.made_by;
        RETURN;
    END IF;
    IF p_kind IN (1, 2, 3) AND old.id IS NULL
        AND (SELECT count(*) FROM (SELECT FROM restriction_changes r WHERE r.standing LIMIT p_limit) s) >= p_limit
    THEN
        o_outcome := 2; RETURN NEXT; RETURN;
    END IF;
    UPDATE restriction_changes r SET standing = false WHERE r.id = old.id;
    RETURN QUERY INSERT INTO restriction_changes AS r
        (kind, user_id, token, issued_until, standing, made_at, made_by)
    VALUES (p_kind, p_user, p_token, CASE WHEN p_kind = 1 THEN greatest(until_second, old.issued_until) END,
        p_kind IN (1, 2, 3), stamp, p_by)
    RETURNING 0::smallint, r.id, r.kind, r.user_id, r.token, r.issued_until, r.made_at, r.made_by;
END
$$;

-- Removes changes that are over and older than p_over_before, and revocations that were made before p_made_before: they
-- concern no valid token any more. The newest row stays, because nodes recognize their place by it.
DROP FUNCTION prune_restrictions(timestamptz, timestamptz);
CREATE FUNCTION prune_restrictions(p_over_before timestamptz, p_made_before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    removed bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(5861215838431560786) THEN RETURN 0; END IF;
    DELETE FROM restriction_changes r
    WHERE r.id < (SELECT max(n.id) FROM restriction_changes n) AND CASE
        WHEN NOT r.standing THEN r.made_at < p_over_before
        WHEN r.kind IN (1, 2) THEN r.made_at < p_made_before
        ELSE false
    END;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
