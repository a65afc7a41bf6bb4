-- STAGE: put down messages and adopted results of tasks that ADD will add; of tasks that are there nothing changes.
-- ARGV  run id, n, then n times (task, message), then (task, adopted record) to the end
-- Reply 'ok' | 'unknown'
-- First write: HSET, which a full server refuses.
local added = tonumber(redis.call('HGET', META, 'added'))
if not added then return 'unknown' end
local messages, results = {}, {}
local last_message = 2 + 2 * tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  local target = i <= last_message and messages or results
  if tonumber(ARGV[i]) >= added then
    target[#target + 1] = ARGV[i]
    target[#target + 1] = ARGV[i + 1]
  end
end
if #messages > 0 then redis.call('HSET', MESSAGES, unpack(messages)) end
if #results > 0 then redis.call('HSET', RESULTS, unpack(results)) end
keep_lifetimes()
return 'ok'
