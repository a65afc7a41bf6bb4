-- DISPATCH: PENDING tasks become QUEUED under their batch. A batch is accepted or refused whole.
-- ARGV  run id, epoch number, epoch holder, then for each batch: id, JSON, its members (38 bytes each: task, attempt,
--       length of the expected lineage, lineage, padding)
-- Reply {'fenced'} | {'unknown'} | {'ok', batches ever accepted, those of them accepted now, 1 or 0 for each batch}
-- First write: HSET of the in-flight entries, which a full server refuses: that is the back-pressure.
-- The number of batches ever accepted grows; one that is lower than it was shows that the server fell back.
-- A batch that is known, or that an in-flight entry or an accepted report names, was accepted before.
if is_fenced(ARGV[2], ARGV[3]) then return {'fenced'} end
local phase = redis.call('HGET', META, 'phase')
if not phase then return {'unknown'} end

local function was_accepted(batch, tasks)
  if redis.call('HEXISTS', BATCHES, batch) == 1 then return true end
  for i, entry in ipairs(redis.call('HMGET', INFLIGHT, unpack(tasks))) do
    if split_entry(entry) == batch then return true end
  end
  for i, facts in ipairs(redis.call('HMGET', FACTS, unpack(tasks))) do
    if facts and string.sub(facts, 1, #batch) == batch then return true end
  end
  return false
end

local taken = {}
local function cells_after(tasks, attempts)
  local cells = {}
  for i, cell in ipairs(read_cells(STATES, 2, tasks)) do
    local attempt = attempts[i]
    if taken[tasks[i]] or string.sub(cell, 1, 1) ~= 'p' or attempt ~= math.min(string.byte(cell, 2) + 1, 255) then
      return nil
    end
    cells[i] = 'q' .. string.char(attempt)
  end
  for _, task in ipairs(tasks) do taken[task] = true end
  return cells
end

local reply, writes = {'ok', 0, 0}, {}
local at = 4
while at <= #ARGV do
  local batch, packed = ARGV[at], ARGV[at + 2]
  local tasks, attempts, entries = {}, {}, {}
  for i = 1, #packed / 38 do
    local task, attempt, length = struct.unpack('>I4BB', packed, 38 * i - 37)
    tasks[i], attempts[i] = task, attempt
    entries[2 * i - 1] = task
    entries[2 * i] = batch .. '\n' .. string.sub(packed, 38 * i - 31, 38 * i - 32 + length)
  end
  local cells = not IS_OVER[phase] and cells_after(tasks, attempts)
  if cells then
    writes[#writes + 1] = {batch, ARGV[at + 1], tasks, cells, entries}
    reply[#reply + 1] = 1
  else
    reply[#reply + 1] = was_accepted(batch, tasks) and 1 or 0
  end
  at = at + 3
end

for _, write in ipairs(writes) do
  redis.call('HSET', INFLIGHT, unpack(write[5]))
  redis.call('HSET', BATCHES, write[1], write[2])
  write_cells(STATES, 2, write[3], write[4])
end
reply[3] = #writes
if #writes > 0 then
  reply[2] = redis.call('HINCRBY', META, 'dispatched', #writes)
  keep_lifetimes({INFLIGHT, BATCHES})
else
  reply[2] = tonumber(redis.call('HGET', META, 'dispatched') or 0)
end
return reply
