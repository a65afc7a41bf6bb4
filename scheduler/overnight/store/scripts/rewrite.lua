-- REWRITE: replace where a finished task's result lies, if its digest is the recorded one.
-- ARGV  run id, task, sealed StoredResult, digest
-- Reply 'ok' | 'other' | 'unknown'
-- First write: HSET, which a full server refuses.
if redis.call('EXISTS', META) == 0 then return 'unknown' end
local task = tonumber(ARGV[2])
local code = string.sub(read_cells(STATES, 2, {task})[1], 1, 1)
if code ~= 'd' and code ~= 'c' then return 'other' end
if read_cells(DIGESTS, 32, {task})[1] ~= ARGV[4] then return 'other' end
redis.call('HSET', RESULTS, task, ARGV[3])
keep_lifetimes({RESULTS})
return 'ok'
