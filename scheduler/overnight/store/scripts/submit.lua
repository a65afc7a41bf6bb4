-- SUBMIT: make a run in phase SUBMITTING, or find the active run in its way.
-- ARGV  run id, graph key, place, record (JSON), context, keep_seconds, id of a run whose record is rubbish or ''
-- Reply {'created' | 'attached' | 'busy', id of the run meant}
-- First write: HSET of the meta, which a full server refuses.
local run_id, graph, place = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', META) == 1 then return {'created', run_id} end

local expired = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', RUNS, '-inf', seconds_text(now), 'LIMIT', 0, 100)) do
  expired[id] = true
end
local function active_in(registry, field)
  local other = field ~= '' and redis.call('HGET', registry, field)
  if not other or expired[other] or redis.call('SISMEMBER', ACTIVE, other) == 0 then return nil end
  if other ~= ARGV[7] and is_kept(run_id, other) then return other end
  expired[other] = true
  return nil
end
local same = active_in(GRAPHS, graph)
if same then return {'attached', same} end
local user = active_in(PLACES, place)
if user then return {'busy', user} end

redis.call('HSET', META, 'record', ARGV[4], 'keep', ARGV[6], 'phase', 'submitting', 'paused', '0', 'added', '0',
  'open', '0', 'sequence', '0', 'created_at', seconds_text(now), 'touched', seconds_text(now))
redis.call('SET', CONTEXT, ARGV[5])
for id in pairs(expired) do
  redis.call('ZREM', RUNS, id)
  redis.call('SREM', ACTIVE, id)
  if id == ARGV[7] then redis.call('HSET', meta_of(run_id, id), 'phase', 'cancelled') end
end
for _, registry in ipairs({GRAPHS, PLACES}) do
  local entries = next(expired) and redis.call('HGETALL', registry) or {}
  for i = 1, #entries, 2 do
    if expired[entries[i + 1]] then redis.call('HDEL', registry, entries[i]) end
  end
end
enter_active(run_id)
keep_lifetimes(KEYS)
return {'created', run_id}
