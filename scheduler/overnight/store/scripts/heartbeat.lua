-- HEARTBEAT: renew the lease of one batch if this instance still holds it, and note which task of it runs.
-- ARGV  run id, batch, instance, lease in seconds, the task of the batch that runs or is about to, empty for none
-- Reply {lost, stop}
-- First write: `pass_when_full`.
local phase = redis.call('HGET', META, 'phase')
if not phase then return {1, 1} end
local stop = (phase == 'cancelling' or IS_OVER[phase]) and 1 or 0
local holder, sequence, marks, begun = split_hold(redis.call('HGET', HOLDS, ARGV[2]))
if holder ~= ARGV[3] then return {1, stop} end
pass_when_full()
if ARGV[5] ~= '' and ARGV[5] ~= begun then
  redis.call('HSET', HOLDS, ARGV[2], hold_text(holder, sequence, marks, ARGV[5]))
end
redis.call('ZADD', LEASES, seconds_text(now + tonumber(ARGV[4])), ARGV[1] .. ' ' .. ARGV[2])
keep_lifetimes({LEASES})
return {0, stop}
