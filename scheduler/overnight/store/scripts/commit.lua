-- COMMIT: record the outcomes of attempts and renew the lease.
-- ARGV  run id, batch, instance, lease in seconds, then for each report: task, '+' or '-', record, digest, lineage,
--       facts, the report as events carry it
-- Reply {known, lease lost, stop, then 1 (accepted) or 0 (superseded) for each report}
-- First write: `pass_when_full`: a result must not be lost because memory is full.
--
-- A success is accepted while its task is open, from whatever batch, if its lineage is the one that the latest
-- DISPATCH expects. Where that is empty, the task depends on members of its own batch: then only that batch may commit
-- it, and only if it was the source of all members before it. A failure is accepted from the batch that holds the task
-- under the instance's lease. The accepted report repeated is accepted; all else is superseded. A report that can only
-- come from a dispatch that the server has forgotten makes `known` 0. A task whose holder reports what cannot be
-- accepted goes back to PENDING.
local run_id, batch, instance = ARGV[1], ARGV[2], ARGV[3]
local phase = redis.call('HGET', META, 'phase')
if not phase then return {0, 1, 1} end
local record = redis.call('HGET', BATCHES, batch)
local holder, sequence, mark_text = split_hold(record and redis.call('HGET', HOLDS, batch))
local held = holder == instance
local marks, position = {}, {}
if held then
  for i, task in ipairs(cjson.decode(record).tasks) do
    position[task] = i
    marks[i] = string.sub(mark_text, i, i)
  end
end

local tasks = {}
for i = 5, #ARGV, 7 do tasks[#tasks + 1] = tonumber(ARGV[i]) end
local states, entries = {}, {}
if #tasks > 0 then
  states = read_cells(STATES, 2, tasks)
  entries = redis.call('HMGET', INFLIGHT, unpack(tasks))
end

local unbroken = 0
local function follows_its_batch(at)
  while marks[unbroken + 1] == '+' do unbroken = unbroken + 1 end
  return at ~= nil and unbroken >= at - 1
end

local function is_repeat(task, code, is_success, digest)
  local facts = redis.call('HGET', FACTS, task)
  if not facts then return false end
  local head = string.sub(facts, 1, string.find(facts, '\n', 1, true) - 1)
  if not is_success then return head == batch .. '-' end
  return head == batch .. '+' and code == 'd' and read_cells(DIGESTS, 32, {task})[1] == digest
end

local reply = {1, 0, (phase == 'cancelling' or phase == 'cancelled') and 1 or 0}
local only_repeats = true
local accepted, done, failed, back, cells, events = {}, {}, {}, {}, {}, {}
for i, task in ipairs(tasks) do
  local at = 5 + 7 * (i - 1)
  local is_success, lineage = ARGV[at + 1] == '+', ARGV[at + 4]
  local code, attempt = string.sub(states[i], 1, 1), string.sub(states[i], 2, 2)
  local owner, expected = split_entry(entries[i])
  local is_mine = held and owner == batch and code == 'x'
  local is_new, is_settled = false, accepted[task] ~= nil
  if not is_settled and IS_OPEN[code] and owner then
    if not is_success then
      is_new = is_mine
    elseif expected ~= '' then
      is_new = lineage == expected
    else
      is_new = is_mine and follows_its_batch(position[task])
    end
  end
  local answer = is_new or (not is_settled and is_repeat(task, code, is_success, ARGV[at + 3]))
  if is_new then
    only_repeats = false
    accepted[task] = true
    local list = is_success and done or failed
    list[#list + 1] = at
    cells[task] = (is_success and 'd' or 't') .. attempt
    events[#events + 1] = ARGV[at + 6]
  elseif not answer then
    only_repeats = false
    if code == '' or (IS_OPEN[code] and not owner) then reply[1] = 0 end
    if is_mine and not is_settled then
      accepted[task] = false
      back[#back + 1] = task
      cells[task] = 'p' .. attempt
    end
  end
  if held and position[task] and marks[position[task]] == '.' then
    marks[position[task]] = (is_new and is_success) and '+' or '-'
  end
  reply[#reply + 1] = answer and 1 or 0
end
if not held and not (only_repeats and #tasks > 0) then reply[2] = 1 end

local changed, changed_cells = {}, {}
for task in pairs(cells) do changed[#changed + 1] = task end
table.sort(changed)
for i, task in ipairs(changed) do changed_cells[i] = cells[task] end
local function record_all(key, list, make)
  local pairs_ = {}
  for _, at in ipairs(list) do
    pairs_[#pairs_ + 1] = ARGV[at]
    pairs_[#pairs_ + 1] = make(at)
  end
  redis.call('HSET', key, unpack(pairs_))
end

pass_when_full()
write_cells(STATES, 2, changed, changed_cells)
if #done > 0 then
  local names = {}
  for i, at in ipairs(done) do
    names[i] = ARGV[at]
    write_cells(DIGESTS, 32, {tonumber(ARGV[at])}, {ARGV[at + 3]})
  end
  record_all(RESULTS, done, function(at) return ARGV[at + 2] end)
  record_all(FACTS, done, function(at) return batch .. '+\n' .. ARGV[at + 5] end)
  redis.call('HDEL', INFLIGHT, unpack(names))
  redis.call('HDEL', ERRORS, unpack(names))
  redis.call('HINCRBY', META, 'open', -#done)
end
if #failed > 0 then
  record_all(ERRORS, failed, function(at) return ARGV[at + 2] end)
  record_all(FACTS, failed, function(at) return batch .. '-\n' .. ARGV[at + 5] end)
end
if held then
  local progress = table.concat(marks)
  if string.find(progress, '.', 1, true) then
    redis.call('HSET', HOLDS, batch, instance .. '\n' .. sequence .. '\n' .. progress)
    redis.call('ZADD', LEASES, seconds_text(now + tonumber(ARGV[4])), run_id .. ' ' .. batch)
  else
    drop_batch(run_id, batch)
  end
end
if #events > 0 then tell('committed', 'b', batch, 'i', instance, 'c', table.concat(events)) end
if #back > 0 then tell('returned', 'b', batch, 't', table.concat(back, ',')) end
keep_lifetimes({RESULTS, ERRORS, FACTS, EVENTS, LEASES})
return reply
