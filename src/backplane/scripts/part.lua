-- Ends a connection's listening to conversations, and removes the connection if asked to. Where the user's last
-- listener or last connection ends, it stores the time at which that may be announced. It changes no other connection's
-- data.
-- KEYS[1] the user's registry entry. ARGV: connection, '1' to remove it, grace in microseconds, conversations…
-- Returns the user's remaining connections, or '?' if there is no entry.
local lines = redis.call('HGET', KEYS[1], 'c')
if not lines and redis.call('EXISTS', KEYS[1]) == 0 then return '?' end
local time = redis.call('TIME')
local due = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[3])
for i = 4, #ARGV do
  local field = 'r/' .. ARGV[i]
  local listeners = redis.call('HGET', KEYS[1], field)
  if listeners and string.find(listeners, ARGV[1], 1, true) then
    local rest = {}
    for one in string.gmatch(listeners, '%S+') do
      if one ~= ARGV[1] then rest[#rest + 1] = one end
    end
    redis.call('HSET', KEYS[1], field, #rest > 0 and table.concat(rest, ' ') or '!' .. due)
  end
end
lines = lines or ''
if ARGV[2] ~= '1' or lines == '' then
  return lines
end
if not string.find(lines, ARGV[1] .. ' ', 1, true) then
  local gave_way = redis.call('HGET', KEYS[1], 'g')
  if gave_way then
    local rest = string.gsub(gave_way, ARGV[1] .. ' [^\n]*\n', '', 1)
    if rest ~= '' then redis.call('HSET', KEYS[1], 'g', rest) else redis.call('HDEL', KEYS[1], 'g') end
  end
  return lines
end
local silent = redis.call('HGET', KEYS[1], 's')
if silent and string.find(silent, ARGV[1], 1, true) then
  local rest = string.gsub(silent, ARGV[1] .. ' ', '', 1)
  if rest ~= '' then redis.call('HSET', KEYS[1], 's', rest) else redis.call('HDEL', KEYS[1], 's') end
end
local kept = ''
for line, other in string.gmatch(lines, '((%S+) [^\n]*\n)') do
  if other ~= ARGV[1] then kept = kept .. line end
end
if kept ~= '' then
  redis.call('HSET', KEYS[1], 'c', kept)
else
  -- The departure first: if one of the two commands is refused, nobody is left without either.
  redis.call('HSET', KEYS[1], 'd', due)
  redis.call('HDEL', KEYS[1], 'c')
end
return kept
