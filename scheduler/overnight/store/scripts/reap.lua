-- REAP: take one batch back if its lease has run out now, by this clock. What was committed stays committed.
-- ARGV  run id, batch, epoch number, epoch holder
-- Reply {'fenced'} | {'kept'} | {'reaped', the tasks that went back}
-- First write: `pass_when_full`: work that a dead worker holds must come free when memory is full.
local run_id, batch = ARGV[1], ARGV[2]
if is_fenced(ARGV[3], ARGV[4]) then return {'fenced'} end
local deadline = redis.call('ZSCORE', LEASES, run_id .. ' ' .. batch)
if not deadline or tonumber(deadline) > now then return {'kept'} end
local record = redis.call('HGET', BATCHES, batch)

pass_when_full()
local back = record and put_back(cjson.decode(record).tasks, batch, 'x') or {}
local holder = split_hold(redis.call('HGET', HOLDS, batch)) or ''
drop_batch(run_id, batch)
if not record then return {'kept'} end
tell('reaped', 'b', batch, 'i', holder, 't', table.concat(back, ','))
keep_lifetimes({EVENTS})
return {'reaped', back}
