-- EPOCH: take the scheduler lease if it is free, run out or the holder's own; renew it otherwise.
-- ARGV  holder, description ('': as before), seconds, schema number
-- Reply {'taken', number} | {'held', holder, description, milliseconds left} | {'schema', number found}
-- First write: `pass_when_full`.
local LONGEST_TERMS = 4
local lease = redis.call('HMGET', SCHEDULER, 'number', 'holder', 'description', 'deadline', 'schema')
if lease[5] and lease[5] ~= ARGV[4] then return {'schema', lease[5]} end
-- What is no number is none of ours: nobody holds such a lease.
local number = tonumber(lease[1] or 0) or 0
local deadline = tonumber(lease[4] or 0) or 0
if lease[2] and lease[2] ~= '' and lease[2] ~= ARGV[1] and deadline > now then
  -- Whoever lives renews three times a term. A lease that lasts for longer is of before the clock was moved back, or none
  -- of ours.
  local latest = now + LONGEST_TERMS * tonumber(ARGV[3])
  if deadline > latest then
    deadline = latest
    pass_when_full()
    redis.call('HSET', SCHEDULER, 'deadline', seconds_text(deadline))
  end
  return {'held', lease[2], lease[3] or '', math.ceil((deadline - now) * 1000)}
end
if lease[2] ~= ARGV[1] then number = number + 1 end
local description = ARGV[2]
if description == '' and lease[2] == ARGV[1] then description = lease[3] end
pass_when_full()
redis.call('HSET', SCHEDULER, 'number', number, 'holder', ARGV[1], 'description', description,
  'deadline', seconds_text(now + tonumber(ARGV[3])), 'schema', ARGV[4])
redis.call('EXPIRE', SCHEDULER, UNTOUCHED_SECONDS)
keep_lifetimes({SCHEDULER})
return {'taken', number}
