-- INVALIDATE: finished tasks become PENDING, their results are forgotten. For a client, a run that had ended becomes active
-- again; one that was cancelled stays as it is. A scheduler does so for an active run alone, and only while it has heard of
-- all invalidations before: what it believes lost may have been computed again since. It has counted which results were.
-- Tasks among them that are in flight compute from what is gone: no success of theirs is accepted until they are
-- dispatched again, as no lineage equals the mark left in their in-flight entry.
-- ARGV  run id, epoch number, epoch holder, how often the scheduler knows results to have been invalidated (all three empty:
--       a client asks), those of the tasks of which the results were found lost ('3,17'), then the tasks
-- Reply {'fenced'} | {'unknown'} | {'stale'} | {'busy', run in the way} | {'ok', how often results were invalidated by now,
--       the tasks that did}
-- First write: `pass_when_full`, as it frees more than it takes.
local run_id = ARGV[1]
local is_scheduler = ARGV[2] ~= ''
if is_scheduler and is_fenced(ARGV[2], ARGV[3]) then return {'fenced'} end
local meta = redis.call('HMGET', META, 'phase', 'invalidations')
local phase, heard = meta[1], meta[2] or '0'
if not phase then return {'unknown'} end
if is_scheduler and (IS_OVER[phase] or phase == 'cancelling' or ARGV[4] ~= heard) then return {'stale'} end
local asked = numbers(ARGV, 6, #ARGV)
if phase == 'cancelled' or #asked == 0 then return {'ok', tonumber(heard)} end
local is_lost = {}
for task in string.gmatch(ARGV[5], '%d+') do is_lost[tonumber(task)] = true end
local states = read_cells(STATES, 2, asked)
local reply, tasks, cells, astray = {'ok', tonumber(heard)}, {}, {}, {}
for i, task in ipairs(asked) do
  local code = string.sub(states[i], 1, 1)
  local batch = IS_OPEN[code] and split_entry(redis.call('HGET', INFLIGHT, task))
  if batch then
    astray[#astray + 1] = task
    astray[#astray + 1] = batch .. '\n!'
  elseif code == 'd' or code == 'c' then
    tasks[#tasks + 1] = task
    reply[#reply + 1] = task
    cells[#cells + 1] = 'p' .. string.sub(states[i], 2, 2)
  end
end
if #astray > 0 then
  pass_when_full()
  redis.call('HSET', INFLIGHT, unpack(astray))
end
if #tasks == 0 then return reply end
local other = IS_OVER[phase] and in_the_way(run_id)
if other then return {'busy', other} end

pass_when_full()
write_cells(STATES, 2, tasks, cells)
for _, task in ipairs(tasks) do write_cells(DIGESTS, 32, {task}, {NO_DIGEST}) end
for _, key in ipairs({RESULTS, FACTS, CHARGES, INFLIGHT}) do redis.call('HDEL', key, unpack(tasks)) end
for _, task in ipairs(tasks) do
  if is_lost[task] then redis.call('HINCRBY', REPAIRS, task, 1) end
end
redis.call('HINCRBY', META, 'open', #tasks)
if IS_OVER[phase] then reopen(run_id) end
reply[2] = redis.call('HINCRBY', META, 'invalidations', 1)
tell('invalidated', 't', table.concat(tasks, ','), 'l', reply[2])
keep_lifetimes({EVENTS, ACTIVE, GRAPHS, PLACES, CONTROL, REPAIRS})
return reply
