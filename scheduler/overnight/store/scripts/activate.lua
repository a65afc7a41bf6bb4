-- ACTIVATE: submission is complete. Schedulers are told as of a change among the active runs.
-- ARGV  run id
-- Reply 'ok' | 'unknown'
-- First write: HSET, which a full server refuses.
local phase = redis.call('HGET', META, 'phase')
if not phase then return 'unknown' end
if phase == 'submitting' then
  redis.call('HSET', META, 'phase', 'active')
  tell_change(ARGV[1])
  keep_lifetimes({CONTROL})
end
return 'ok'
