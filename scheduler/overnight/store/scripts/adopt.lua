-- ADOPT: PENDING tasks become CACHED: valid flags stand for their results.
-- ARGV  run id, then for each task: task, digest, sealed StoredResult
-- Reply {'unknown'} | {'ok', the tasks that are cached with these digests}
-- First write: HSET, which a full server refuses.
if redis.call('EXISTS', META) == 0 then return {'unknown'} end
local tasks = {}
for i = 2, #ARGV, 3 do tasks[#tasks + 1] = tonumber(ARGV[i]) end
if #tasks == 0 then return {'ok'} end
local states, digests = read_cells(STATES, 2, tasks), read_cells(DIGESTS, 32, tasks)
local reply, fresh, told = {'ok'}, {}, {}
for i, task in ipairs(tasks) do
  local at = 2 + 3 * (i - 1)
  local code = string.sub(states[i], 1, 1)
  if code == 'p' then
    fresh[#fresh + 1] = {task, 'c' .. string.sub(states[i], 2, 2), ARGV[at + 1], ARGV[at + 2]}
    told[#told + 1] = ARGV[at] .. ':c:'
    reply[#reply + 1] = task
  elseif code == 'c' and digests[i] == ARGV[at + 1] then
    reply[#reply + 1] = task
  end
end
for _, one in ipairs(fresh) do
  redis.call('HSET', RESULTS, one[1], one[4])
  write_cells(STATES, 2, {one[1]}, {one[2]})
  write_cells(DIGESTS, 32, {one[1]}, {one[3]})
  redis.call('HDEL', INFLIGHT, one[1])
  redis.call('HDEL', ERRORS, one[1])
end
if #fresh > 0 then
  redis.call('HINCRBY', META, 'open', -#fresh)
  tell('settled', 'v', table.concat(told, ','))
  keep_lifetimes({RESULTS, EVENTS})
end
return reply
