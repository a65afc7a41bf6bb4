-- LOAD: read at one instant all that changes in a run. Writes nothing.
-- ARGV  run id
-- Reply {} | {meta, states, digests, charges, flights as {batch, queue, claimed, tasks}, last event's id, tried tasks that
--       lacked inputs and which ('!': they were invalidated since), repairs}
if redis.call('EXISTS', META) == 0 then return {} end
local flights = {}
local batches = redis.call('HGETALL', BATCHES)
for i = 1, #batches, 2 do
  local batch, record = batches[i], cjson.decode(batches[i + 1])
  local states = read_cells(STATES, 2, record.tasks)
  local entries = redis.call('HMGET', INFLIGHT, unpack(record.tasks))
  local tasks = {}
  for j, task in ipairs(record.tasks) do
    local code = string.sub(states[j], 1, 1)
    if (code == 'q' or code == 'x') and split_entry(entries[j]) == batch then tasks[#tasks + 1] = task end
  end
  if #tasks > 0 then
    flights[#flights + 1] = {batch, record.queue, redis.call('HEXISTS', HOLDS, batch), tasks}
  end
end
local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)
local states, lacking = redis.call('GET', STATES) or '', {}
local at = string.find(states, 't', 1, true)
while at do
  if at % 2 == 1 then
    local task = (at - 1) / 2
    local _, lineage = split_entry(redis.call('HGET', INFLIGHT, task))
    if lineage == '!' or (lineage and string.find(lineage, '^%?[%d,]+$')) then
      lacking[#lacking + 1] = task
      lacking[#lacking + 1] = lineage
    end
  end
  at = string.find(states, 't', at + 1, true)
end
return {redis.call('HGETALL', META), states, redis.call('GET', DIGESTS) or '', redis.call('HGETALL', CHARGES), flights,
  last[1] and last[1][1] or '0-0', lacking, redis.call('HGETALL', REPAIRS)}
