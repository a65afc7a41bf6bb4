-- FINISH: end the run if every task is terminal: it leaves the active runs and its keys expire.
-- ARGV  run id, epoch number, epoch holder, phase
-- Reply 'fenced' | 'unknown' | 'ended' | 'open'
-- First write: `pass_when_full`.
local run_id = ARGV[1]
if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
local meta = redis.call('HMGET', META, 'phase', 'open', 'keep', 'record')
if not meta[1] then return 'unknown' end
if IS_OVER[meta[1]] then return 'ended' end
if meta[1] == 'submitting' or tonumber(meta[2]) > 0 then return 'open' end

pass_when_full()
local record = cjson.decode(meta[4])
if redis.call('HGET', GRAPHS, record.key) == run_id then redis.call('HDEL', GRAPHS, record.key) end
if redis.call('HGET', PLACES, record.place) == run_id then redis.call('HDEL', PLACES, record.place) end
end_run(run_id, ARGV[4], keep_of(meta[3], record))
return 'ended'
