-- SETTLE: record the scheduler's verdicts. One that is no transition from where its task stands changes nothing. A task
-- in flight goes back to PENDING only if no batch holds it.
-- ARGV  run id, epoch number, epoch holder, then for each verdict: task, state code, charge, cause, error, death
--       certificate of its latest attempt ('': none)
-- Reply 'fenced' | 'unknown' | 'ok'
-- First write: `pass_when_full`.
local ALLOWED = {
  p = {p = true, f = true, s = true, k = true},
  q = {k = true},
  x = {k = true},
  t = {p = true, f = true, k = true},
  f = {f = true, p = true},
  s = {s = true, p = true},
  k = {k = true, p = true},
}
if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
local phase = redis.call('HGET', META, 'phase')
if not phase then return 'unknown' end
if IS_OVER[phase] then return 'ok' end

local tasks = {}
for i = 4, #ARGV, 6 do tasks[#tasks + 1] = tonumber(ARGV[i]) end
if #tasks == 0 then return 'ok' end
local states = read_cells(STATES, 2, tasks)
local current = {}
for i, task in ipairs(tasks) do current[task] = states[i] end

-- Whether a task is in flight under a batch that is not there, because a part of the record was lost.
local function is_orphan(task, from)
  if from ~= 'q' and from ~= 'x' then return false end
  local batch = split_entry(redis.call('HGET', INFLIGHT, task))
  return not batch or redis.call('HEXISTS', BATCHES, batch) == 0
end

pass_when_full()
local opened, told = 0, {}
for i, task in ipairs(tasks) do
  local at = 4 + 6 * (i - 1)
  local cell, to = current[task], ARGV[at + 1]
  local from = string.sub(cell, 1, 1)
  if (ALLOWED[from] and ALLOWED[from][to]) or (to == 'p' and is_orphan(task, from)) then
    if ARGV[at + 2] ~= '' then redis.call('HSET', CHARGES, task, ARGV[at + 2]) end
    if ARGV[at + 3] ~= '' then redis.call('HSET', CAUSES, task, ARGV[at + 3]) end
    if ARGV[at + 4] ~= '' then redis.call('HSET', ERRORS, task, ARGV[at + 4]) end
    if ARGV[at + 5] ~= '' then redis.call('HSET', DEATHS, slot_of(task, string.byte(cell, 2)), ARGV[at + 5]) end
    if from ~= to then
      current[task] = to .. string.sub(cell, 2, 2)
      write_cells(STATES, 2, {task}, {current[task]})
      told[#told + 1] = ARGV[at] .. ':' .. to .. ':' .. ARGV[at + 3]
      if to ~= 'p' then
        redis.call('HDEL', INFLIGHT, task)
        opened = opened - 1
      elseif not IS_OPEN[from] then
        redis.call('HDEL', CAUSES, task)
        opened = opened + 1
      end
    end
  end
end
if opened ~= 0 then redis.call('HINCRBY', META, 'open', opened) end
if #told > 0 then tell('settled', 'v', table.concat(told, ',')) end
keep_lifetimes({CHARGES, CAUSES, ERRORS, EVENTS, DEATHS})
return 'ok'
