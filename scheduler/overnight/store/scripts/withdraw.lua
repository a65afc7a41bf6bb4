-- WITHDRAW: take back batches that no worker holds: their tasks become PENDING. Nothing is charged.
-- ARGV  run id, epoch number, epoch holder, then the batches
-- Reply {'fenced'} | {'unknown'} | {'ok', the batches withdrawn}
-- First write: `pass_when_full`.
local run_id = ARGV[1]
if is_fenced(ARGV[2], ARGV[3]) then return {'fenced'} end
if redis.call('EXISTS', META) == 0 then return {'unknown'} end
local reply = {'ok'}
pass_when_full()
for i = 4, #ARGV do
  local batch = ARGV[i]
  local record = redis.call('HGET', BATCHES, batch)
  if record and redis.call('HEXISTS', HOLDS, batch) == 0 then
    local back = put_back(cjson.decode(record).tasks, batch, 'q')
    drop_batch(run_id, batch)
    tell('returned', 'b', batch, 't', table.concat(back, ','))
    reply[#reply + 1] = batch
  end
end
keep_lifetimes({EVENTS})
return reply
