-- STAGE: put down messages and adopted results of tasks that the next ADD will add; of any other addition nothing.
-- ARGV  run id, first task of the addition, n, then n times (task, message), then (task, adopted record) to the end
-- Reply 'ok' | 'unknown'
-- First write: HSET, which a full server refuses.
local added = tonumber(redis.call('HGET', META, 'added'))
if not added then return 'unknown' end
if tonumber(ARGV[2]) ~= added then return 'ok' end
local messages, results = {}, {}
local last_message = 3 + 2 * tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  local target = i <= last_message and messages or results
  target[#target + 1] = ARGV[i]
  target[#target + 1] = ARGV[i + 1]
end
if #messages > 0 then redis.call('HSET', MESSAGES, unpack(messages)) end
if #results > 0 then redis.call('HSET', RESULTS, unpack(results)) end
keep_lifetimes({MESSAGES, RESULTS})
return 'ok'
