-- COMMIT: record the outcomes of attempts and renew the lease.
-- ARGV  run id, batch, instance, lease in seconds, the reports as events carry them (45 bytes each: task, flags,
--       seconds, digest), their lineages (33 bytes each: length, lineage, padding), then for each report: record,
--       facts, then for each failure: its death certificate ('': none), the dependencies whose results it lacked ('3,17')
-- Reply {known, lease lost, stop, then 1 (accepted) or 0 (superseded) for each report}
-- First write: `pass_when_full`: a result must not be lost because memory is full.
--
-- A success is accepted while its task is open, from whatever batch, if its lineage is the one that the latest
-- DISPATCH expects. Where that is empty, the task depends on members of its own batch: then only that batch may commit
-- it, and only if it was the source of all members before it. A failure is accepted from the batch that holds the task
-- under the instance's lease; one that lacked inputs which were invalidated since its dispatch is none, and the task
-- goes back. What it lacked stands in the in-flight entry until the next dispatch. The accepted report repeated is
-- accepted; all else is superseded. A report that can only come from a dispatch that the server has forgotten makes
-- `known` 0. A task whose holder reports what cannot be accepted goes back to PENDING.
local run_id, batch, instance = ARGV[1], ARGV[2], ARGV[3]
local phase = redis.call('HGET', META, 'phase')
if not phase then return {0, 1, 1} end
local record = redis.call('HGET', BATCHES, batch)
local holder, sequence, mark_text, begun = split_hold(record and redis.call('HGET', HOLDS, batch))
local held = holder == instance
local marks, position = {}, {}
if held then
  for i, task in ipairs(cjson.decode(record).tasks) do
    position[task] = i
    marks[i] = string.sub(mark_text, i, i)
  end
end

local reports, lineages = ARGV[5], ARGV[6]
local tasks, successes, certificates, lost = {}, {}, {}, {}
local count, failures = #reports / 45, 0
for i = 1, count do
  local flags
  tasks[i], flags = struct.unpack('>I4B', reports, 45 * i - 44)
  successes[i] = flags % 2 == 1
  if not successes[i] then
    failures = failures + 1
    certificates[i] = ARGV[5 + 2 * count + 2 * failures]
    lost[i] = ARGV[6 + 2 * count + 2 * failures]
  end
end
local function digest_of(i) return string.sub(reports, 45 * i - 31, 45 * i) end
local function lineage_of(i) return string.sub(lineages, 33 * i - 31, 33 * i - 32 + string.byte(lineages, 33 * i - 32)) end
local names = fields(tasks)
local states, entries = {}, {}
if #tasks > 0 then
  states = read_cells(STATES, 2, tasks)
  entries = redis.call('HMGET', INFLIGHT, unpack(names))
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
-- Lists hold the numbers of reports, but for `back`, which holds tasks. No task is in a list twice.
local accepted, done, failed, back, news, changed, cells = {}, {}, {}, {}, {}, {}, {}
for i, task in ipairs(tasks) do
  local is_success = successes[i]
  local code, attempt = string.sub(states[i], 1, 1), string.sub(states[i], 2, 2)
  local owner, expected = split_entry(entries[i])
  local is_mine = held and owner == batch and code == 'x'
  local is_new, is_settled = false, accepted[task] ~= nil
  if not is_settled and IS_OPEN[code] and owner then
    if not is_success then
      is_new = is_mine and (lost[i] == '' or expected ~= '!')
    elseif expected ~= '' then
      is_new = lineage_of(i) == expected
    else
      is_new = is_mine and follows_its_batch(position[task])
    end
  end
  local answer = is_new or (not is_settled and is_repeat(task, code, is_success, digest_of(i)))
  if is_new then
    only_repeats = false
    accepted[task] = true
    local list = is_success and done or failed
    list[#list + 1] = i
    news[#news + 1] = i
    changed[#changed + 1] = i
    cells[i] = (is_success and 'd' or 't') .. attempt
  elseif not answer then
    only_repeats = false
    if code == '' or (IS_OPEN[code] and not owner) then reply[1] = 0 end
    if is_mine and not is_settled then
      accepted[task] = false
      back[#back + 1] = task
      changed[#changed + 1] = i
      cells[i] = 'p' .. attempt
    end
  end
  if held and position[task] and marks[position[task]] == '.' then
    marks[position[task]] = (is_new and is_success) and '+' or '-'
  end
  reply[#reply + 1] = answer and 1 or 0
end
if not held and not (only_repeats and #tasks > 0) then reply[2] = 1 end

-- Sort the listed reports by task; most are in that order as they come.
local function sort_by_task(list)
  for n = 2, #list do
    if tasks[list[n]] < tasks[list[n - 1]] then
      return table.sort(list, function(one, other) return tasks[one] < tasks[other] end)
    end
  end
end
-- Write the cells of the tasks of the listed reports.
local function write_reported(key, width, list, cell_of)
  local indices, values = {}, {}
  sort_by_task(list)
  for n, i in ipairs(list) do indices[n], values[n] = tasks[i], cell_of(i) end
  write_cells(key, width, indices, values)
end
-- Write the argument at `offset` of each listed report, after `head`, under its task.
local function record_all(key, list, offset, head)
  local pairs_ = {}
  for n, i in ipairs(list) do
    pairs_[2 * n - 1] = names[i]
    pairs_[2 * n] = head .. ARGV[5 + 2 * i + offset]
  end
  redis.call('HSET', key, unpack(pairs_))
end

pass_when_full()
write_reported(STATES, 2, changed, function(i) return cells[i] end)
if #done > 0 then
  local finished = {}
  for n, i in ipairs(done) do finished[n] = names[i] end
  write_reported(DIGESTS, 32, done, digest_of)
  record_all(RESULTS, done, 0, '')
  record_all(FACTS, done, 1, batch .. '+\n')
  redis.call('HDEL', INFLIGHT, unpack(finished))
  redis.call('HDEL', ERRORS, unpack(finished))
  redis.call('HINCRBY', META, 'open', -#done)
end
local lacking = {}
if #failed > 0 then
  record_all(ERRORS, failed, 0, '')
  record_all(FACTS, failed, 1, batch .. '-\n')
  for _, i in ipairs(failed) do
    if certificates[i] and certificates[i] ~= '' then
      redis.call('HSET', DEATHS, slot_of(tasks[i], string.byte(states[i], 2)), certificates[i])
    end
    if lost[i] ~= '' then
      redis.call('HSET', INFLIGHT, tasks[i], batch .. '\n?' .. lost[i])
      lacking[#lacking + 1] = tasks[i] .. ':' .. lost[i]
    end
  end
end
if held then
  local progress = table.concat(marks)
  if string.find(progress, '.', 1, true) then
    redis.call('HSET', HOLDS, batch, hold_text(instance, sequence, progress, begun))
    redis.call('ZADD', LEASES, seconds_text(now + tonumber(ARGV[4])), run_id .. ' ' .. batch)
  else
    drop_batch(run_id, batch)
  end
end
local function told()
  if #news == count then return reports end
  local events = {}
  for n, i in ipairs(news) do events[n] = string.sub(reports, 45 * i - 44, 45 * i) end
  return table.concat(events)
end
if #lacking > 0 then
  tell('committed', 'b', batch, 'i', instance, 'c', told(), 'm', table.concat(lacking, ';'))
elseif #news > 0 then
  tell('committed', 'b', batch, 'i', instance, 'c', told())
end
if #back > 0 then tell('returned', 'b', batch, 't', table.concat(back, ',')) end
keep_lifetimes({RESULTS, ERRORS, FACTS, EVENTS, LEASES, DEATHS})
return reply
