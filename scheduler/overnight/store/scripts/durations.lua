-- DURATIONS: store learned durations.
-- ARGV  (function name, JSON) to the end
-- Reply 'ok'
-- First write: HSET, which a full server refuses.
redis.call('HSET', DURATIONS, unpack(ARGV))
keep_lifetimes({DURATIONS})
return 'ok'
