-- GIVE_BACK: tasks that the holder of a batch has not started become PENDING. Nothing is charged.
-- ARGV  run id, batch, instance, then the tasks
-- Reply 'ok' | 'unknown'
-- First write: `pass_when_full`.
local run_id, batch = ARGV[1], ARGV[2]
if redis.call('EXISTS', META) == 0 then return 'unknown' end
local record = redis.call('HGET', BATCHES, batch)
local holder, sequence, mark_text, begun = split_hold(record and redis.call('HGET', HOLDS, batch))
if holder ~= ARGV[3] then return 'ok' end
local members, named = cjson.decode(record).tasks, {}
for _, task in ipairs(numbers(ARGV, 4, #ARGV)) do named[task] = true end
local asked, marks = {}, {}
for i, task in ipairs(members) do
  marks[i] = string.sub(mark_text, i, i)
  if named[task] and marks[i] == '.' then
    asked[#asked + 1] = task
    marks[i] = '-'
  end
end
if #asked == 0 then return 'ok' end

pass_when_full()
local back = put_back(asked, batch, 'x')
local progress = table.concat(marks)
if string.find(progress, '.', 1, true) then
  redis.call('HSET', HOLDS, batch, hold_text(holder, sequence, progress, begun))
else
  drop_batch(run_id, batch)
end
tell('returned', 'b', batch, 't', table.concat(back, ','))
keep_lifetimes({EVENTS})
return 'ok'
