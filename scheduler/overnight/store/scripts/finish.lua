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
for _, batch in ipairs(redis.call('HKEYS', BATCHES)) do redis.call('ZREM', LEASES, run_id .. ' ' .. batch) end
redis.call('DEL', BATCHES, HOLDS, INFLIGHT)
local record = cjson.decode(meta[4])
if redis.call('HGET', GRAPHS, record.key) == run_id then redis.call('HDEL', GRAPHS, record.key) end
if redis.call('HGET', PLACES, record.place) == run_id then redis.call('HDEL', PLACES, record.place) end
redis.call('HSET', META, 'phase', ARGV[4], 'paused', '0', 'ended_at', seconds_text(now))
tell('ended', 'p', ARGV[4])
local keep = math.max(math.ceil(tonumber(meta[3])), 1)
for i = 12, #KEYS do redis.call('EXPIRE', KEYS[i], keep) end
redis.call('ZADD', RUNS, seconds_text(now + keep), run_id)
if redis.call('TTL', RUNS) < keep then redis.call('EXPIRE', RUNS, math.max(keep, UNTOUCHED_SECONDS)) end
redis.call('SREM', ACTIVE, run_id)
tell_change(run_id)
keep_lifetimes({EVENTS, CONTROL})
return 'ended'
