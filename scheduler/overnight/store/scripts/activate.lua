-- ACTIVATE: submission is complete. Schedulers are told as of a change among the active runs.
-- ARGV  run id, number of tasks that were added
-- Reply 'ok' | 'unknown' (the run, or some of these tasks: the server has lost them)
-- First write: HSET, which a full server refuses.
local meta = redis.call('HMGET', META, 'phase', 'added')
if not meta[1] or tonumber(meta[2]) < tonumber(ARGV[2]) then return 'unknown' end
if meta[1] == 'submitting' then
  redis.call('HSET', META, 'phase', 'active')
  tell_change(ARGV[1])
  keep_lifetimes({CONTROL})
end
return 'ok'
