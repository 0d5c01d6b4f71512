-- A hash of the command that stored the entry, if a client gave its id. NULL once the text is deleted, and in rows of
-- earlier versions.
ALTER TABLE log ADD COLUMN fingerprint INTEGER;
