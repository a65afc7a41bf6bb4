-- ABANDON: end a cancelled run whose tasks cannot all be made terminal, because what is stored of it is damaged.
-- ARGV  run id, epoch number, epoch holder
-- Reply 'fenced' | 'unknown' | 'ended' | 'open'
-- First write: `pass_when_full`. Its record may be the damage, so the registries are searched for its id.
local run_id = ARGV[1]
if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
local meta = redis.call('HMGET', META, 'phase', 'keep')
if not meta[1] then return 'unknown' end
if IS_OVER[meta[1]] then return 'ended' end
if meta[1] ~= 'cancelling' then return 'open' end

pass_when_full()
for _, registry in ipairs({GRAPHS, PLACES}) do
  local entries = redis.call('HGETALL', registry)
  for i = 1, #entries, 2 do
    if entries[i + 1] == run_id then redis.call('HDEL', registry, entries[i]) end
  end
end
redis.call('HSET', META, 'open', '0')
end_run(run_id, 'cancelled', keep_of(meta[2]))
return 'ended'
