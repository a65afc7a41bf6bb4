-- STAGE: put down messages and adopted results of tasks that the next ADD will add; of any other addition nothing.
-- ARGV  run id, first task of the addition, name of what is staged, '1' if it begins, n, then n times (task, message),
--       then (task, adopted record) to the end
-- Reply 'ok' | 'unknown' | 'disordered' (another client has begun to stage its own)
-- First write: HSET, which a full server refuses.
local meta = redis.call('HMGET', META, 'added', 'staging')
if not meta[1] then return 'unknown' end
if tonumber(ARGV[2]) ~= tonumber(meta[1]) then return 'ok' end
if ARGV[4] == '1' then
  redis.call('HSET', META, 'staging', ARGV[3])
elseif meta[2] ~= ARGV[3] then
  return 'disordered'
end
local messages, results = {}, {}
local last_message = 5 + 2 * tonumber(ARGV[5])
for i = 6, #ARGV, 2 do
  local target = i <= last_message and messages or results
  target[#target + 1] = ARGV[i]
  target[#target + 1] = ARGV[i + 1]
end
if #messages > 0 then redis.call('HSET', MESSAGES, unpack(messages)) end
if #results > 0 then redis.call('HSET', RESULTS, unpack(results)) end
keep_lifetimes({MESSAGES, RESULTS})
return 'ok'
