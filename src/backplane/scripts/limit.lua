-- Exact sliding window: the list holds the times of admitted shares, newest first, in microseconds of Redis' clock.
-- KEYS[1] the window. ARGV: limit, window in microseconds, number of shares to take (default 1).
-- Returns 0 if a share is free; all shares are then taken, even if fewer are free. Else returns the microseconds until
-- the next share is free.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
-- Times that are later than now are left from before Redis' clock was set back. They count as taken now: a window is never
-- longer than its length.
local newest = redis.call('LINDEX', KEYS[1], 0)
if newest and tonumber(newest) > now then
  local times = redis.call('LRANGE', KEYS[1], 0, limit - 1)
  redis.call('DEL', KEYS[1])
  for n = #times, 1, -1 do
    redis.call('LPUSH', KEYS[1], string.format('%.0f', math.min(tonumber(times[n]), now)))
  end
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1)
end
local nth = redis.call('LINDEX', KEYS[1], limit - 1)
if nth and nth + window > now then
  return math.min(nth + window - now, window)
end
local stamp = string.format('%.0f', now)
if not ARGV[3] then
  redis.call('LPUSH', KEYS[1], stamp)
else
  local stamps = {}
  for n = 1, tonumber(ARGV[3]) do
    stamps[n] = stamp
  end
  redis.call('LPUSH', KEYS[1], unpack(stamps))
end
redis.call('LTRIM', KEYS[1], 0, limit - 1)
-- PEXPIRE counts whole milliseconds. Without the one more, the key could expire before its newest time leaves the
-- window.
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1)
return 0
