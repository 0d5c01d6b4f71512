-- Claims a user's departures that are due, so that exactly one caller announces them.
-- KEYS[1] the user's registry entry. ARGV: the longest time until a departure is due, in microseconds. One that is due later
-- is left from before Redis' clock was set back, and is due now.
-- Returns {1 if they are offline now, signed name, time of the next departure or '', {conversations left}, {if offline: the
-- conversations left before, while the user stayed online (field l, the newest 32)}}.
local entry, flat = {}, redis.call('HGETALL', KEYS[1])
if #flat == 0 then
  return {0, '', '', {}, {}}
end
for i = 1, #flat, 2 do entry[flat[i]] = flat[i + 1] end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function time_of(text)
  local at = tonumber(text)
  if at and at > now + ARGV[1] then return now end
  return at
end
local due = not entry['c'] and time_of(entry['d'])
local offline, next_due, left = due and due <= now, nil, {}
if due and not offline then next_due = due end
for field, listeners in pairs(entry) do
  if string.sub(field, 1, 2) == 'r/' then
    local at = string.sub(listeners, 1, 1) == '!' and time_of(string.sub(listeners, 2))
    if offline or (at and at <= now) then
      left[#left + 1] = string.sub(field, 3)
      if not offline then redis.call('HDEL', KEYS[1], field) end
    elseif at and (not next_due or at < next_due) then
      next_due = at
    end
  end
end
local before = {}
for room in string.gmatch(entry['l'] or '', '[^\n]+') do
  if not entry['r/' .. room] then before[#before + 1] = room end
end
if offline then
  redis.call('DEL', KEYS[1])
elseif #left > 0 then
  local all = table.concat(before, '\n', math.max(1, #before + #left - 31))
  all = all .. '\n' .. table.concat(left, '\n', math.max(1, #left - 31))
  redis.call('HSET', KEYS[1], 'l', all)
end
local shown = next_due and string.format('%.0f', next_due) or ''
return {offline and 1 or 0, entry['n'] or '', shown, left, offline and before or {}}
