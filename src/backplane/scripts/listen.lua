-- Records that a connection listens to a conversation.
-- KEYS[1] the user's registry entry. ARGV: connection, conversation.
-- Returns 1 if it is the user's first listener there, 0 if not (or within the grace), -1 if the connection is unknown.
local lines = redis.call('HGET', KEYS[1], 'c')
if not lines or not string.find(lines, ARGV[1] .. ' ', 1, true) then
  return -1
end
local field = 'r/' .. ARGV[2]
local listeners = redis.call('HGET', KEYS[1], field)
if not listeners then
  redis.call('HSET', KEYS[1], field, ARGV[1])
  return 1
end
if string.sub(listeners, 1, 1) == '!' then
  redis.call('HSET', KEYS[1], field, ARGV[1])
elseif not string.find(listeners, ARGV[1], 1, true) then
  redis.call('HSET', KEYS[1], field, listeners .. ' ' .. ARGV[1])
end
return 0
