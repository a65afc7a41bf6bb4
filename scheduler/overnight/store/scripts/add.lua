-- ADD: add tasks, whose messages and adopted results were staged. A run that had ended becomes active again.
-- ARGV  run id, first, count, spec, states (two bytes a task), digests (32 bytes a task), adopted tasks with commas
--       between, number of tasks that are not adopted, name of what was staged for them (empty: nothing), digests of
--       the blobs that were put for them
-- Reply {'ok'} | {'unknown'} (the run, or one of these blobs: the server has lost it) | {'disordered', tasks added so far} (or
--       another client has staged what it adds here, or the server has lost what was staged) | {'busy', run in the way}
-- First write: HSET of the spec, which a full server refuses.
local run_id, first, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local meta = redis.call('HMGET', META, 'phase', 'added', 'made', 'staging')
if not meta[1] then return {'unknown'} end
local added = tonumber(meta[2])
if first < added and redis.call('HGET', SPECS, ARGV[2]) == ARGV[4] then return {'ok'} end
if first ~= added or (ARGV[9] ~= '' and meta[4] ~= ARGV[9]) then return {'disordered', added} end
for i = 10, #ARGV do
  if redis.call('HEXISTS', BLOBS, ARGV[i]) == 0 then return {'unknown'} end
end
local other = IS_OVER[meta[1]] and in_the_way(run_id)
if other then return {'busy', other} end

redis.call('HSET', SPECS, ARGV[2], ARGV[4])
redis.call('SETRANGE', STATES, first * 2, ARGV[5])
redis.call('SETRANGE', DIGESTS, first * 32, ARGV[6])
if redis.call('EXISTS', RESULTS) == 1 then
  -- An addition that was staged and never made may have adopted what this one does not.
  local new = {}
  for i = 0, count - 1 do
    if string.sub(ARGV[5], 2 * i + 1, 2 * i + 1) == 'p' then new[#new + 1] = first + i end
    if #new == 1000 or (i == count - 1 and #new > 0) then
      redis.call('HDEL', RESULTS, unpack(fields(new)))
      new = {}
    end
  end
end
redis.call('HSET', META, 'added', first + count)
if meta[3] or first == 0 then redis.call('HSET', META, 'made', redis.sha1hex((meta[3] or '') .. ARGV[4])) end
redis.call('HDEL', META, 'staging')
redis.call('HINCRBY', META, 'open', ARGV[8])
if IS_OVER[meta[1]] then reopen(run_id) end
tell('added', 't', ARGV[7])
keep_lifetimes({SPECS, STATES, DIGESTS, EVENTS, ACTIVE, GRAPHS, PLACES, CONTROL})
return {'ok'}
