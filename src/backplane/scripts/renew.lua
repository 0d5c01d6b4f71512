-- Renews or acquires a node's lease, and returns the leases.
-- KEYS[1] the leases. ARGV: incarnation, lease in milliseconds, mode, a new name for the epoch, deployment.
-- Modes: 'renew'. 'renew due': renew, and return only leases of which less than three fifths are left. A lease that is renewed in
-- time has more, and between two renewals less than a third passes. 'acquire'. 'follow': acquire, if the keys are this deployment's. 'replace': acquire, after the caller removed
-- what another deployment had left.
-- An expired lease is never renewed, since other nodes may be reaping it. The epoch, '/deployment.random@milliseconds' with the
-- time at which it began, is a member that only a wipe or another deployment removes; one of an earlier version names no
-- deployment and counts as ours. A member
-- '!incarnation' says until when that node removes what another deployment had left.
-- Returns {state, Redis' time in microseconds, epoch, {incarnation, milliseconds left, …}}. The state is 0 if the lease was not
-- held; 1 if it was, or is now; 2 if another deployment uses these keys, with its leases only, or did ('follow');
-- 3 if the caller must remove what another deployment left, and then call with 'replace'; 4 if another node removes it.
local me, length, mode, mine = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[5]
local longest_lease, only_due = 3600000, mode == 'renew due'
if only_due then mode = 'renew' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local micros = string.format('%.0f', time[1] * 1000000 + time[2])
local held, epoch, remover, leases = false, nil, nil, {}
local flat
if only_due then
  flat = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now + length * 0.6, 'WITHSCORES')
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf')) do
    flat[#flat + 1], flat[#flat + 2] = member, 'inf'
  end
  local ends = redis.call('ZSCORE', KEYS[1], me)
  held = ends and tonumber(ends) > now
else
  flat = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
end
for i = 1, #flat, 2 do
  local member, left = flat[i], tonumber(flat[i + 1]) - now
  local first = string.sub(member, 1, 1)
  if first == '/' then
    epoch = member
  elseif first == '!' then
    -- No node removes for longer than a lease lasts; what another program wrote may never end.
    if left > 0 and left <= longest_lease and member ~= '!' .. me then remover = member end
  else
    held = held or (member == me and left > 0)
    leases[#leases + 1] = member
    leases[#leases + 1] = left
  end
end
local owner = epoch and string.match(epoch, '^/(%x+)%.')
if mode == 'follow' and not epoch then
  return {2, micros, '', {}}
end
if mode ~= 'renew' and owner and owner ~= mine then
  local others = {}
  for i = 1, #leases, 2 do
    local of, left = string.match(leases[i], '#(%x+)%.') or owner, leases[i + 1]
    -- Redis may have been frozen, so a lease counts for another length of it.
    if of ~= mine and left > -length and left <= longest_lease then
      others[#others + 1] = leases[i]
      others[#others + 1] = left
    end
  end
  if #others > 0 then
    return {2, micros, epoch, others}
  elseif mode == 'follow' then
    return {2, micros, epoch, {}}
  elseif remover then
    return {4, micros, epoch, {}}
  elseif mode ~= 'replace' then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + length), '!' .. me)
    return {3, micros, epoch, {}}
  end
  redis.call('DEL', KEYS[1])
  epoch, leases = nil, {}
end
if epoch and not owner and mode ~= 'renew' then
  redis.call('ZREM', KEYS[1], epoch)
  epoch = nil
end
if not epoch then
  epoch = ARGV[4] .. '@' .. string.format('%.0f', now)
  redis.call('ZADD', KEYS[1], '+inf', epoch)
end
if held or mode ~= 'renew' then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + length), me)
  held = true
end
return {held and 1 or 0, micros, epoch, leases}
