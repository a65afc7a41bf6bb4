-- REGISTER: announce a worker for some seconds, and forget those whose time is over.
-- ARGV  instance, record (JSON), seconds, sealed last lines of the task that it runs where they have changed ('': none)
-- Reply 'ok'
-- First write: `pass_when_full`.
pass_when_full()
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', seconds_text(now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', WORKERS, gone)
  redis.call('HDEL', WORKER_RECORDS, gone)
  redis.call('HDEL', WORKER_TAILS, gone)
end
redis.call('ZADD', WORKERS, seconds_text(now + tonumber(ARGV[3])), ARGV[1])
redis.call('HSET', WORKER_RECORDS, ARGV[1], seconds_text(now) .. ' ' .. ARGV[2])
if ARGV[4] == '' then
  redis.call('HDEL', WORKER_TAILS, ARGV[1])
elseif ARGV[4] then
  redis.call('HSET', WORKER_TAILS, ARGV[1], ARGV[4])
end
keep_lifetimes({WORKERS, WORKER_RECORDS, WORKER_TAILS})
return 'ok'
