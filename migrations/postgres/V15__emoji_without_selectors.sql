-- An emoji with and without variation selectors (U+FE0F) is one reaction.
INSERT INTO reactions (log, seq, user_id, emoji)
SELECT log, seq, user_id, replace(emoji, chr(65039), '') FROM reactions WHERE position(chr(65039) IN emoji) > 0
ON CONFLICT DO NOTHING;
DELETE FROM reactions WHERE position(chr(65039) IN emoji) > 0;
