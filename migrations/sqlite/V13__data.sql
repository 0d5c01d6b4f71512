-- JSON beside the text of a message, as its sender wrote it. Of an edit: NULL keeps the data of its message, and 'null'
-- removes it.
ALTER TABLE log ADD COLUMN data TEXT;
