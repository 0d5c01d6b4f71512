-- The keys with which the nodes of this deployment sign what they write into Redis. A new key signs after a minute, once
-- every node has read it; an old one is accepted until its row is deleted.
CREATE TABLE node_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Two random UUIDs: 244 random bits.
    secret bytea NOT NULL DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
        CHECK (octet_length(secret) >= 32),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO node_keys DEFAULT VALUES;
