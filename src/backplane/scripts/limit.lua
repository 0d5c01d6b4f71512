-- Exact sliding window: the list holds the times of admitted shares, newest first, in microseconds of Redis' clock.
-- KEYS[1] the window. ARGV: limit, window in microseconds, number of shares to take, then, if the caller noticed that Redis'
-- clock was set back: microseconds since then, and '1' while a time from before could be taken for a later one.
-- Returns 0 if a share is free; all shares are then taken, even if fewer are free. Else returns the microseconds until
-- the next share is free.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
-- What was taken before the clock was set back was taken at that moment at the latest, or now if the caller does not know
-- it. So a window is never longer than its length.
local latest = now - (tonumber(ARGV[4]) or 0)
local newest = redis.call('LINDEX', KEYS[1], 0)
if newest and tonumber(newest) > now then
  local times = redis.call('LRANGE', KEYS[1], 0, limit - 1)
  redis.call('DEL', KEYS[1])
  for n = #times, 1, -1 do
    redis.call('LPUSH', KEYS[1], string.format('%.0f', math.min(tonumber(times[n]), latest)))
  end
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1)
end
-- Half a microsecond marks the times that were taken after the step by callers that had noticed it.
local marks = ARGV[5] == '1'
local nth = tonumber(redis.call('LINDEX', KEYS[1], limit - 1) or nil)
if nth and marks and nth > latest and nth % 1 == 0 then
  nth = latest
end
if nth and nth + window > now then
  return math.ceil(math.min(nth + window - now, window))
end
local stamp = string.format('%.0f', now) .. (marks and '.5' or '')
local stamps = {}
for n = 1, tonumber(ARGV[3]) do
  stamps[n] = stamp
end
-- Lua 5.4, which Dragonfly has, knows unpack by another name.
redis.call('LPUSH', KEYS[1], (table.unpack or unpack)(stamps))
redis.call('LTRIM', KEYS[1], 0, limit - 1)
-- PEXPIRE counts whole milliseconds. Without the one more, the key could expire before its newest time leaves the
-- window.
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1)
return 0
