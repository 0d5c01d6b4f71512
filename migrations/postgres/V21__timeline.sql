-- The timeline of the server in which the epoch began. A promoted standby and a server that was recovered to an earlier time
-- have another one, and may lack what was acked last.
ALTER TABLE deployment ADD COLUMN timeline text;

-- The present epoch. Begins a new one if the server has another timeline than before.
CREATE FUNCTION present_epoch() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    known deployment%ROWTYPE;
    present text;
BEGIN
    SELECT * INTO known FROM deployment;
    IF pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN
        RETURN known.epoch;
    END IF;
    BEGIN
        present := left(pg_walfile_name(pg_current_wal_lsn()), 8);
        IF present IS DISTINCT FROM known.timeline THEN
            UPDATE deployment SET timeline = present, epoch = CASE WHEN timeline IS NULL THEN epoch
                    ELSE greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint) END
                WHERE timeline IS DISTINCT FROM present;
            SELECT * INTO known FROM deployment;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        -- The server does not tell its timeline, or this role may not write. Nodes still compare the entries.
        NULL;
    END;
    RETURN known.epoch;
END
$$;
