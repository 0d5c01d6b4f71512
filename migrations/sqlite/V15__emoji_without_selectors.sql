-- An emoji with and without variation selectors (U+FE0F) is one reaction.
INSERT INTO reactions (log, seq, user_id, emoji)
SELECT log, seq, user_id, replace(emoji, char(65039), '') FROM reactions WHERE instr(emoji, char(65039)) > 0
ON CONFLICT DO NOTHING;
DELETE FROM reactions WHERE instr(emoji, char(65039)) > 0;
