-- HEARTBEAT: renew the lease of one batch if this instance still holds it.
-- ARGV  run id, batch, instance, lease in seconds
-- Reply {lost, stop}
-- First write: `pass_when_full`.
local phase = redis.call('HGET', META, 'phase')
if not phase then return {1, 1} end
local stop = (phase == 'cancelling' or IS_OVER[phase]) and 1 or 0
if split_hold(redis.call('HGET', HOLDS, ARGV[2])) ~= ARGV[3] then return {1, stop} end
pass_when_full()
redis.call('ZADD', LEASES, seconds_text(now + tonumber(ARGV[4])), ARGV[1] .. ' ' .. ARGV[2])
keep_lifetimes({LEASES})
return {0, stop}
