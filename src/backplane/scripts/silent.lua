-- Records that a connection is silent, or that it is not any more.
-- KEYS[1] the user's registry entry. ARGV: connection, '1' if it is silent.
-- Returns 0 if the entry has no such connection, since it gave way to another one; else 1.
local lines = redis.call('HGET', KEYS[1], 'c')
if not lines or not string.find(lines, ARGV[1] .. ' ', 1, true) then
  return 0
end
local silent = ''
for one in string.gmatch(redis.call('HGET', KEYS[1], 's') or '', '%S+') do
  if one ~= ARGV[1] then silent = silent .. one .. ' ' end
end
if ARGV[2] == '1' then silent = silent .. ARGV[1] .. ' ' end
if silent ~= '' then
  redis.call('HSET', KEYS[1], 's', silent)
else
  redis.call('HDEL', KEYS[1], 's')
end
return 1
