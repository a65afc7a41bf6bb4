-- RESTORE: put digests back that were lost of finished tasks, as their records tell them. Others change nothing.
-- ARGV  run id, then for each task: task, digest
-- Reply 'ok' | 'unknown'
-- First write: `pass_when_full`, as tasks wait for it.
if redis.call('EXISTS', META) == 0 then return 'unknown' end
local tasks, digests = {}, {}
for i = 2, #ARGV, 2 do
  tasks[#tasks + 1] = tonumber(ARGV[i])
  digests[tonumber(ARGV[i])] = ARGV[i + 1]
end
if #tasks == 0 then return 'ok' end
local states, known = read_cells(STATES, 2, tasks), read_cells(DIGESTS, 32, tasks)
pass_when_full()
for i, task in ipairs(tasks) do
  local code = string.sub(states[i], 1, 1)
  local is_lost = #known[i] < 32 or known[i] == NO_DIGEST
  if (code == 'd' or code == 'c') and is_lost then write_cells(DIGESTS, 32, {task}, {digests[task]}) end
end
keep_lifetimes({DIGESTS})
return 'ok'
