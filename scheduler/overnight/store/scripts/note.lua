-- NOTE: keep with a run what its scheduler has to say to people: why it leaves the run alone. '' takes the note away.
-- ARGV  run id, epoch number, epoch holder, text
-- Reply 'fenced' | 'unknown' | 'ok'
-- First write: `pass_when_full`.
if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
if redis.call('EXISTS', META) == 0 then return 'unknown' end
pass_when_full()
if ARGV[4] == '' then
  redis.call('HDEL', META, 'note')
else
  redis.call('HSET', META, 'note', ARGV[4])
end
return 'ok'
