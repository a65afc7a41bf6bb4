-- LOAD: read at one instant all that changes in a run. Writes nothing.
-- ARGV  run id
-- Reply {} | {meta, states, digests, charges, flights as {batch, queue, claimed, tasks}, last event's id}
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
return {redis.call('HGETALL', META), redis.call('GET', STATES) or '', redis.call('GET', DIGESTS) or '',
  redis.call('HGETALL', CHARGES), flights, last[1] and last[1][1] or '0-0'}
