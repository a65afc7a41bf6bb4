-- UNREGISTER: forget a worker.
-- ARGV  instance
-- Reply 'ok'
-- First write: ZREM, which a full server allows.
redis.call('ZREM', WORKERS, ARGV[1])
redis.call('HDEL', WORKER_RECORDS, ARGV[1])
redis.call('HDEL', WORKER_TAILS, ARGV[1])
return 'ok'
