-- Renews or acquires a node's lease, and returns all leases.
-- KEYS[1] the leases. ARGV: incarnation, lease in milliseconds, '1' to acquire, a new name for the epoch.
-- An expired lease is never renewed, since other nodes may be reaping it. The epoch is a member that only a wipe
-- removes.
-- Returns {1 if the lease was held, Redis' time in microseconds, epoch,
-- {incarnation, milliseconds left, …}}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local held = score and tonumber(score) > now
if held or ARGV[3] == '1' then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
end
local epoch, leases = nil, {}
local flat = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #flat, 2 do
  if string.sub(flat[i], 1, 1) == '/' then
    epoch = flat[i]
  else
    leases[#leases + 1] = flat[i]
    leases[#leases + 1] = tonumber(flat[i + 1]) - now
  end
end
if not epoch then
  epoch = ARGV[4]
  redis.call('ZADD', KEYS[1], '+inf', epoch)
end
return {held and 1 or 0, string.format('%.0f', time[1] * 1000000 + time[2]), epoch, leases}
