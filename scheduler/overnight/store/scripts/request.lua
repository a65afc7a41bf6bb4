-- CANCEL, PAUSE, RESUME: they hold at once for CLAIM, COMMIT and HEARTBEAT. On a run that is over nothing changes.
-- ARGV  run id, 'cancel' | 'pause' | 'resume'
-- Reply 'ok' | 'unknown'
-- First write: `pass_when_full`.
local meta = redis.call('HMGET', META, 'phase', 'paused')
if not meta[1] then return 'unknown' end
local changes = {
  cancel = {meta[1] ~= 'cancelling', 'phase', 'cancelling'},
  pause = {meta[2] == '0', 'paused', '1'},
  resume = {meta[2] == '1', 'paused', '0'},
}
local change = changes[ARGV[2]]
if IS_OVER[meta[1]] or not change[1] then return 'ok' end
pass_when_full()
redis.call('HSET', META, change[2], change[3])
tell('requested', 'q', ARGV[2])
keep_lifetimes({EVENTS})
return 'ok'
