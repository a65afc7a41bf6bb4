-- RELEASE: end the quarantine of a host and forget what was held against it.
-- ARGV  host
-- Reply 1 if there was anything, else 0
-- First write: HDEL, which a full server allows.
return redis.call('HDEL', QUARANTINE, ARGV[1])
