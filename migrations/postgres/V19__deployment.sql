-- The identity of this deployment: all nodes with this database, and no other. Nodes on one Redis tell by it what is theirs.
CREATE TABLE deployment (
    -- Allows one row.
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- A copy of the database has the id of its original until it gets its own: UPDATE deployment SET id = gen_random_uuid().
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Increases whenever what was made from the earlier state of the database must not be used any more.
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0)
);
INSERT INTO deployment DEFAULT VALUES;
