-- RETRY: failed, skipped and cancelled tasks become PENDING with nothing charged, and what was lost too often may be
-- computed again. A run that had ended becomes active. Workers see by `retried` that code may have been mended.
-- One that was cancelled does so by a person's wish, and not to mend results that are lost.
-- ARGV  run id, 'mend' or empty, then the tasks
-- Reply {'unknown'} | {'cancelled'} | {'busy', run in the way} | {'ok'}
-- First write: `pass_when_full`. Followers are told the failed and cancelled ones; skipped ones follow from them.
local run_id = ARGV[1]
local phase = redis.call('HGET', META, 'phase')
if not phase then return {'unknown'} end
if phase == 'cancelling' or (phase == 'cancelled' and ARGV[2] == 'mend') then return {'cancelled'} end
local asked = numbers(ARGV, 3, #ARGV)
if #asked == 0 then return {'ok'} end
local states = read_cells(STATES, 2, asked)
local tasks, cells, told = {}, {}, {}
for i, task in ipairs(asked) do
  local code = string.sub(states[i], 1, 1)
  if code == 'f' or code == 's' or code == 'k' then
    tasks[#tasks + 1] = task
    cells[#cells + 1] = 'p' .. string.sub(states[i], 2, 2)
    if code ~= 's' then told[#told + 1] = task end
  end
end
if #tasks == 0 then return {'ok'} end
local other = IS_OVER[phase] and in_the_way(run_id)
if other then return {'busy', other} end

pass_when_full()
write_cells(STATES, 2, tasks, cells)
for _, key in ipairs({CHARGES, CAUSES, INFLIGHT}) do redis.call('HDEL', key, unpack(tasks)) end
for _, task in ipairs(redis.call('HKEYS', REPAIRS)) do redis.call('HDEL', REPAIRS, task) end
redis.call('HINCRBY', META, 'open', #tasks)
redis.call('HINCRBY', META, 'retried', 1)
if IS_OVER[phase] then reopen(run_id) end
if #told > 0 then tell('requested', 'q', 'retry', 't', table.concat(told, ',')) end
keep_lifetimes({EVENTS, ACTIVE, GRAPHS, PLACES, CONTROL})
return {'ok'}
