-- How nodes reach each other while Redis is away. Nothing of it outlives a crash of the database: whoever finds the
-- database back compares every log with it anyway.

-- Nodes that reach others through here alone, and until when they say so.
CREATE UNLOGGED TABLE alone (
    node text COLLATE "C" PRIMARY KEY,
    until timestamptz NOT NULL
);

-- Logs that grew and of which others were not told, with the newest seq.
CREATE UNLOGGED TABLE notices (
    log text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX notices_at ON notices (at);

-- A node gives notice of logs that grew, and says that it is alone for p_seconds more, where it is. In the order of the
-- logs' names: two nodes tell of the same logs.
CREATE FUNCTION give_notice(p_node text, p_seconds double precision, p_logs text[], p_seqs bigint[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO alone SELECT p_node, clock_timestamp() + make_interval(secs => p_seconds) WHERE p_seconds > 0
    ON CONFLICT (node) DO UPDATE SET until = excluded.until;
    INSERT INTO notices SELECT log, seq, clock_timestamp() FROM unnest(p_logs, p_seqs) AS n (log, seq) ORDER BY log COLLATE "C"
    ON CONFLICT (log) DO UPDATE SET seq = greatest(notices.seq, excluded.seq), at = excluded.at;
$$;

-- A node reaches others again. What everybody has read by now goes.
CREATE FUNCTION withdraw_notice(p_node text) RETURNS void
LANGUAGE sql VOLATILE AS $$
    DELETE FROM alone WHERE node = p_node OR until < clock_timestamp() - interval '1 hour';
    DELETE FROM notices WHERE at < clock_timestamp() - interval '1 minute';
$$;
