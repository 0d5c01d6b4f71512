-- Replaces one node's part of a user's registry entry with the given state. Serves four cases: registering in a new
-- era, repairing after a failed call, the half-hourly renewal, and (with no connections) reaping a dead node.
-- KEYS[1] the entry. ARGV: incarnation, former incarnation or '', signed name, grace in microseconds, TTL in seconds,
-- number of connections, then for each its id, time of its opening and dialect, conversation or ''; then pairs of conversation and the ids
-- of its listeners, separated by spaces.
-- Connections that gave way to others meanwhile (field g) are not written.
-- Returns {1 if the user was online, connections removed, all connections now, {conversations new to the entry},
-- connections that gave way (ids, each followed by a space)}.
local me, former, name, ttl, count = ARGV[1], ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6])
local time = redis.call('TIME')
local due = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[4])

local entry, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do entry[flat[i]] = flat[i + 1] end
local was_online = entry['c'] or entry['d']
if count == 0 and not was_online then
  -- An entry without connections and without a departure: a command of an earlier script was refused. The user departs now.
  if #flat > 0 then redis.call('HSET', KEYS[1], 'd', due) end
  return {0, 0, '', {}, ''}
end

local mine, others, lines, removed = {}, {}, '', 0
for i = 7, 6 + 3 * count, 3 do mine[ARGV[i]] = true end
for line, id, holder in string.gmatch(entry['c'] or '', '((%S+) (%S+) [^\n]*\n)') do
  if not mine[id] then
    if holder == me or holder == former then
      removed = removed + 1
    else
      others[id] = true
      lines = lines .. line
    end
  end
end
local gave_way, given, held = {}, '', ''
for line, id, holder in string.gmatch(entry['g'] or '', '((%S+) (%S+)\n)') do
  if mine[id] then
    gave_way[id], given, held = true, given .. id .. ' ', held .. id .. ' ' .. me .. '\n'
  elseif holder ~= me and holder ~= former then
    held = held .. line
  end
end
if held ~= '' then
  redis.call('HSET', KEYS[1], 'g', held)
elseif entry['g'] then
  redis.call('HDEL', KEYS[1], 'g')
end
for i = 7, 6 + 3 * count, 3 do
  if not gave_way[ARGV[i]] then
    lines = lines .. ARGV[i] .. ' ' .. me .. ' ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2] .. '\n'
  end
end

local rooms, begun = {}, {}
for i = 7 + 3 * count, #ARGV, 2 do
  local field = 'r/' .. ARGV[i]
  rooms[field] = ARGV[i + 1]
  if not entry[field] then begun[#begun + 1] = ARGV[i] end
end
for field, listeners in pairs(entry) do
  if string.sub(field, 1, 2) == 'r/' and string.sub(listeners, 1, 1) ~= '!' then
    local rest = {}
    for id in string.gmatch(listeners, '%S+') do
      if others[id] then rest[#rest + 1] = id end
    end
    if rooms[field] then rest[#rest + 1] = rooms[field] end
    rooms[field] = #rest > 0 and table.concat(rest, ' ') or '!' .. due
  end
end
for field, listeners in pairs(rooms) do redis.call('HSET', KEYS[1], field, listeners) end

if lines ~= '' then
  redis.call('HSET', KEYS[1], 'c', lines)
  redis.call('HDEL', KEYS[1], 'd')
  if count > 0 then redis.call('HSET', KEYS[1], 'n', name) end
elseif entry['c'] then
  redis.call('HSET', KEYS[1], 'd', due)
  redis.call('HDEL', KEYS[1], 'c')
end
redis.call('EXPIRE', KEYS[1], ttl)
return {was_online and 1 or 0, removed, lines, begun, given}
