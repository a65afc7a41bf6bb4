-- BLOBS: store blobs by digest; present ones are kept.
-- ARGV  run id, then (digest, blob) to the end
-- Reply 'ok' | 'unknown'
-- First write: HSETNX, which a full server refuses.
if redis.call('EXISTS', META) == 0 then return 'unknown' end
for i = 2, #ARGV, 2 do redis.call('HSETNX', BLOBS, ARGV[i], ARGV[i + 1]) end
keep_lifetimes({BLOBS})
return 'ok'
