-- LEAVE: give the scheduler lease up. The number stays, so that the next epoch has another one.
-- ARGV  holder
-- Reply 'ok'
-- First write: `pass_when_full`.
if redis.call('HGET', SCHEDULER, 'holder') == ARGV[1] then
  pass_when_full()
  redis.call('HSET', SCHEDULER, 'holder', '', 'deadline', '0')
end
return 'ok'
