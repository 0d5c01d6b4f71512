-- Exact sliding window: the list holds the times of admitted sends, newest first, in microseconds of Redis' clock.
-- KEYS[1] the window. ARGV: limit, window in microseconds.
-- Returns 0 if the send is admitted (and counted), else the microseconds until the next send is admitted.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local nth = redis.call('LINDEX', KEYS[1], limit - 1)
if nth and nth + window > now then
  return math.min(nth + window - now, window)
end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('LTRIM', KEYS[1], 0, limit - 1)
-- PEXPIRE counts whole milliseconds. Without the one more, the key could expire before its newest time leaves the
-- window.
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1)
return 0
