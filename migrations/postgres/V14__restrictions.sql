-- What admins did to keep users out: each change is a row, and the rows that stand are the present restrictions. Nodes
-- read the rows after the last one that they know.
CREATE TABLE restriction_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind smallint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    -- The jti of the revoked token.
    token text COLLATE "C",
    -- Tokens of the user that were issued up to this second since 1970 are revoked.
    issued_until bigint,
    -- False for changes that are over: disconnections, ended blocks, and what a later change replaces.
    standing boolean NOT NULL,
    made_at timestamptz NOT NULL,
    made_by text NOT NULL
);
COMMENT ON COLUMN restriction_changes.kind IS '0 disconnected, 1 revoked, 2 token revoked, 3 blocked, 4 unblocked';
CREATE INDEX restriction_changes_standing ON restriction_changes (user_id) WHERE standing;

-- Makes a change, at most p_limit of which stand. The lock lets the changes commit in the order of their ids, so that no
-- reader misses one. o_outcome: 0 changed, 1 unchanged (with the row that stands, if there is one), 2 too many stand.
CREATE FUNCTION restrict_user(
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
BEGIN
    PERFORM pg_advisory_xact_lock(5861215838431560786);
    stamp := clock_timestamp();
    until_second := CASE WHEN p_kind = 1 THEN coalesce(p_issued_until, floor(extract(epoch FROM stamp))::bigint) END;
    SELECT * INTO old FROM restriction_changes r
    WHERE r.user_id = p_user AND r.standing AND r.kind = CASE p_kind WHEN 4 THEN 3 ELSE p_kind END
        AND (p_kind <> 2 OR r.token = p_token);
    IF (p_kind = 1 AND old.issued_until >= until_second)
        OR (p_kind IN (2, 3) AND old.id IS NOT NULL)
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
    VALUES (p_kind, p_user, p_token, until_second, p_kind IN (1, 2, 3), stamp, p_by)
    RETURNING 0::smallint, r.id, r.kind, r.user_id, r.token, r.issued_until, r.made_at, r.made_by;
END
$$;

COMMENT ON FUNCTION restrict_user(smallint, text, text, bigint, text, bigint) IS
    'p_kind: 0 disconnected, 1 revoked, 2 token revoked, 3 blocked, 4 unblocked. o_outcome: 0 changed, 1 unchanged, 2 too many';

-- Removes changes that are over and older than p_over_before, and revocations that concern no valid token any more. The
-- newest row stays, because nodes recognize their place by it.
CREATE FUNCTION prune_restrictions(p_over_before timestamptz, p_expired_before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    removed bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(5861215838431560786) THEN RETURN 0; END IF;
    DELETE FROM restriction_changes r
    WHERE r.id < (SELECT max(n.id) FROM restriction_changes n) AND CASE
        WHEN NOT r.standing THEN r.made_at < p_over_before
        WHEN r.kind = 1 THEN r.issued_until < floor(extract(epoch FROM p_expired_before))
        WHEN r.kind = 2 THEN r.made_at < p_expired_before
        ELSE false
    END;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
