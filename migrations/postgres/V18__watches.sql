-- What a node that died left undone is found by another one: messages whose members were not notified, and questions to
-- personas. Each process has a row that it renews every few seconds, whatever the number of appends.

-- signed_at: the last sign of life. done_until: what was stored before this time needs no one's attention. taken_until: until then
-- one node works on what the process left. A crash of the database ends no process, so the rows must outlive it.
CREATE TABLE watches (
    process text COLLATE "C" PRIMARY KEY,
    signed_at timestamptz NOT NULL,
    done_until timestamptz NOT NULL,
    taken_until timestamptz
);
