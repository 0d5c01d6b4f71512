-- Stores the departure of a user who has no entry, although one was written: it is announced like any other. A user who came
-- back meanwhile has an entry.
-- KEYS[1] the user's registry entry. ARGV: grace in microseconds, TTL in seconds, conversations to which the user listened…
if redis.call('EXISTS', KEYS[1]) == 1 then return end
local time = redis.call('TIME')
local due = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1])
redis.call('HSET', KEYS[1], 'd', due)
for i = 3, #ARGV do redis.call('HSET', KEYS[1], 'r/' .. ARGV[i], '!' .. due) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
