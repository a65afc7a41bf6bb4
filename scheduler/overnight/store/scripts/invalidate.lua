-- INVALIDATE: finished tasks become PENDING, their results are forgotten. A run that had ended becomes active again; one
-- that was cancelled stays as it is.
-- Tasks among them that are in flight compute from what is gone: no success of theirs is accepted until they are
-- dispatched again, as no lineage equals the mark left in their in-flight entry.
-- ARGV  run id, then the tasks
-- Reply {'unknown'} | {'busy', run in the way} | {'ok', the tasks that did}
-- First write: `pass_when_full`, as it frees more than it takes.
local run_id = ARGV[1]
local phase = redis.call('HGET', META, 'phase')
if not phase then return {'unknown'} end
if phase == 'cancelled' then return {'ok'} end
local asked = numbers(ARGV, 2, #ARGV)
if #asked == 0 then return {'ok'} end
local states = read_cells(STATES, 2, asked)
local reply, tasks, cells, astray = {'ok'}, {}, {}, {}
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
redis.call('HINCRBY', META, 'open', #tasks)
if IS_OVER[phase] then reopen(run_id) end
tell('invalidated', 't', table.concat(tasks, ','), 'l', redis.call('HINCRBY', META, 'invalidations', 1))
keep_lifetimes({EVENTS, ACTIVE, GRAPHS, PLACES, CONTROL})
return reply
