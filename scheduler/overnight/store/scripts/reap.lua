-- REAP: take one batch back if its lease has run out now, by this clock. What was committed stays committed.
-- ARGV  run id, batch, epoch number, epoch holder
-- Reply {'fenced'} | {'kept'} | {'reaped', the tasks that went back}
-- The event tells whether the first of these tasks is known to have begun.
-- First write: `pass_when_full`: work that a dead worker holds must come free when memory is full.
local run_id, batch = ARGV[1], ARGV[2]
if is_fenced(ARGV[3], ARGV[4]) then return {'fenced'} end
local deadline = redis.call('ZSCORE', LEASES, run_id .. ' ' .. batch)
if not deadline or tonumber(deadline) > now then return {'kept'} end
local record = redis.call('HGET', BATCHES, batch)
local _, _, _, begun = split_hold(redis.call('HGET', HOLDS, batch))

pass_when_full()
local back = record and put_back(cjson.decode(record).tasks, batch, 'x') or {}
drop_batch(run_id, batch)
if not record then return {'kept'} end
tell('reaped', 'b', batch, 't', table.concat(back, ','), 'g', tostring(back[1]) == begun and '1' or '0')
keep_lifetimes({EVENTS})
return {'reaped', back}
