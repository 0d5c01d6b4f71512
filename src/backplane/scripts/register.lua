-- Adds a connection to a user's registry entry, unless the user has reached a cap. At a cap, silent connections give way,
-- the one first that has been silent for longest.
-- KEYS[1] the entry. ARGV: connection, incarnation, time of its opening and dialect, conversation ('' if user-scoped), signed name,
-- cap of its scope, cap of all sockets, TTL in seconds, connections that gave way already (ids, separated by spaces),
-- then pairs of incarnation and 'dead' or 'stale'.
-- Returns {1, first, connections that gave way} or {0, retry_may_succeed, ''}: retry_may_succeed is 1 if the cap would not
-- be reached without connections of stale nodes.
local id, conversation = ARGV[1], ARGV[4]
local cap, sum = tonumber(ARGV[6]), tonumber(ARGV[7])
local doubt, gone = {}, {}
for one in string.gmatch(ARGV[9], '%S+') do gone[one] = true end
for i = 10, #ARGV, 2 do doubt[ARGV[i]] = ARGV[i + 1] end

local lines = redis.call('HGET', KEYS[1], 'c') or ''
local counted, same, all, sure_same, sure_all = {}, 0, 0, 0, 0
for other, holder, scope in string.gmatch(lines, '(%S+) (%S+) %S+ (%S*)\n') do
  if other ~= id and not gone[other] then
    local one = scope == conversation and 1 or 0
    if doubt[holder] ~= 'dead' then
      counted[other] = one
      all, same = all + 1, same + one
    end
    if not doubt[holder] then
      sure_all, sure_same = sure_all + 1, sure_same + one
    end
  end
end
local given, silent = '', ''
for one in string.gmatch(redis.call('HGET', KEYS[1], 's') or '', '%S+') do
  local fits = same >= cap and counted[one] == 1 or same < cap and all >= sum and counted[one]
  if fits then
    all, same = all - 1, same - counted[one]
    given, gone[one] = given .. one .. ' ', true
  elseif counted[one] then
    silent = silent .. one .. ' '
  end
end
if same >= cap or all >= sum then
  local certain = sure_same >= cap or sure_all >= sum
  return {0, certain and 0 or 1, ''}
end
local kept, gave_way = '', ''
for line, other, holder in string.gmatch(lines, '((%S+) (%S+) [^\n]*\n)') do
  if gone[other] then
    gave_way = gave_way .. other .. ' ' .. holder .. '\n'
  elseif other ~= id then
    kept = kept .. line
  end
end
if given ~= '' then redis.call('HSET', KEYS[1], 's', silent) end
if gave_way ~= '' then
  -- Their nodes don't know it yet, and must not write them again. 4,000 bytes hold at least 20 of them.
  gave_way = (redis.call('HGET', KEYS[1], 'g') or '') .. gave_way
  redis.call('HSET', KEYS[1], 'g', string.sub(gave_way, -4000))
end
local first = lines == '' and redis.call('HDEL', KEYS[1], 'd') == 0
redis.call('HSET', KEYS[1], 'n', ARGV[5], 'c',
  kept .. id .. ' ' .. ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. conversation .. '\n')
redis.call('EXPIRE', KEYS[1], ARGV[8])
return {1, first and 1 or 0, given}
