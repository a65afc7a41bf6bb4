-- CLAIM: a worker takes a batch under a lease and gets those of its tasks that are still queued for it. The same
-- instance and sequence number get the same answer again. On a run that is paused or being cancelled the batch goes
-- back instead. A worker whose host is in quarantine is refused, and the batch stays queued.
-- ARGV  run id, batch, instance, sequence, lease in seconds
-- Reply {'unknown'} | {'refused', reason} | {'claimed', meta, batch JSON, tasks, cells, in-flight entries, messages,
--       context}
-- First write: `pass_when_full`, as what is queued may be finished when memory is full.
local run_id, batch, instance, sequence = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local meta = redis.call('HMGET', META, 'phase', 'paused')
if not meta[1] then return {'unknown'} end
local record = redis.call('HGET', BATCHES, batch)
if not record then return {'refused', 'finished, withdrawn or unknown'} end
local tasks = cjson.decode(record).tasks
local names = fields(tasks)
local holder, held_sequence = split_hold(redis.call('HGET', HOLDS, batch))
if holder and (holder ~= instance or held_sequence ~= sequence) then return {'refused', 'held'} end

local function hand_out(code)
  local mine, cells, mine_entries, mine_names, marks = {}, {}, {}, {}, {}
  local states = read_cells(STATES, 2, tasks)
  local entries = redis.call('HMGET', INFLIGHT, unpack(names))
  for i, task in ipairs(tasks) do
    marks[i] = '-'
    if string.sub(states[i], 1, 1) == code and split_entry(entries[i]) == batch then
      mine[#mine + 1] = task
      cells[#cells + 1] = 'x' .. string.sub(states[i], 2, 2)
      mine_entries[#mine_entries + 1] = entries[i]
      mine_names[#mine_names + 1] = names[i]
      marks[i] = '.'
    end
  end
  return mine, cells, mine_entries, mine_names, table.concat(marks)
end

local stopped = (meta[1] == 'cancelling' or IS_OVER[meta[1]]) and 'cancelled' or (meta[2] == '1' and 'paused')
if stopped and not holder then
  pass_when_full()
  local back = put_back(tasks, batch, 'q')
  drop_batch(run_id, batch)
  tell('returned', 'b', batch, 't', table.concat(back, ','))
  keep_lifetimes({HOLDS, LEASES, EVENTS})
  return {'refused', stopped}
end

if not holder then
  local queue = cjson.decode(record).queue
  for _, barred in ipairs(barred_queues(instance)) do
    if barred == queue then return {'refused', 'quarantined'} end
  end
end

local mine, cells, entries, mine_names, marks = hand_out(holder and 'x' or 'q')
if #mine == 0 then
  if not holder then drop_batch(run_id, batch) end
  return {'refused', 'finished'}
end
pass_when_full()
redis.call('ZADD', LEASES, seconds_text(now + tonumber(ARGV[5])), run_id .. ' ' .. batch)
if not holder then
  redis.call('HSET', HOLDS, batch, hold_text(instance, sequence, marks, ''))
  write_cells(STATES, 2, mine, cells)
  tell('claimed', 'b', batch, 'i', instance, 't', table.concat(mine_names, ','))
  keep_lifetimes({HOLDS, LEASES, EVENTS})
end
return {'claimed', redis.call('HGETALL', META), record, mine, cells, entries,
  redis.call('HMGET', MESSAGES, unpack(mine_names)), redis.call('GET', CONTEXT)}
