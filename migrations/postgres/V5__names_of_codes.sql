-- What the small numbers stand for, where a reader of the schema looks for it. The program has the same names in
-- src/store/codes.rs and in the model's Status; a number is never reused.

COMMENT ON COLUMN log.kind IS '0 message, 1 edited, 2 deleted, 3 reacted, 4 member added, 5 member removed, 6 conversation added, 7 conversation removed, 8 notified';
COMMENT ON COLUMN conversations.kind IS '0 group, 1 direct';
COMMENT ON COLUMN users.status IS '0 online, 1 away, 2 dnd, 3 invisible';
COMMENT ON FUNCTION append_messages IS
    'o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change';
COMMENT ON FUNCTION append_change IS
    'p_authority: 0 member, 1 admin, 2 system. o_outcome: 0 stored, 1 not a member, 2 no such log, 3 no such target, 4 stored before, 5 not the sender''s own, 6 nothing to change';
