-- GRACE: give leases one fresh term, because the server's clock was moved, or nobody can take them back. A lease that
-- has ended meanwhile stays so.
-- ARGV  epoch number, epoch holder, term in seconds, then the leases as 'run batch'
-- Reply 'fenced' | 'ok'
-- First write: `pass_when_full`.
if is_fenced(ARGV[1], ARGV[2]) then return 'fenced' end
pass_when_full()
for i = 4, #ARGV do redis.call('ZADD', LEASES, 'XX', seconds_text(now + tonumber(ARGV[3])), ARGV[i]) end
return 'ok'
