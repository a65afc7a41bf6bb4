-- ACCUSE: hold against a host that a task died there and succeeded elsewhere. With enough of them it is in quarantine.
-- Evidence counts for some time; what has led to a quarantine is spent when that is over.
-- ARGV  host, 'run task', evidence it takes, seconds that evidence counts, seconds of quarantine
-- Reply {number of tasks held against the host, milliseconds of quarantine left (0: it is not in quarantine)}
-- First write: `pass_when_full`.
local host, most = ARGV[1], tonumber(ARGV[3])
local function valid(text)
  local entry = quarantine_of(text) or {['until'] = 0, evidence = {}}
  if entry['until'] > now then return entry, true end
  local kept, any = {}, false
  for task, at in pairs(entry['until'] == 0 and entry.evidence or {}) do
    if at + tonumber(ARGV[4]) > now then kept[task], any = at, true end
  end
  return {['until'] = 0, evidence = kept}, any
end

local entry = valid(redis.call('HGET', QUARANTINE, host))
entry.evidence[ARGV[2]] = entry.evidence[ARGV[2]] or now
local number = 0
for _ in pairs(entry.evidence) do number = number + 1 end
if entry['until'] == 0 and number >= most then entry['until'] = now + tonumber(ARGV[5]) end

pass_when_full()
local all = redis.call('HGETALL', QUARANTINE)
for i = 1, #all, 2 do
  local _, is_needed = valid(all[i + 1])
  if not is_needed then redis.call('HDEL', QUARANTINE, all[i]) end
end
redis.call('HSET', QUARANTINE, host, cjson.encode(entry))
keep_lifetimes({QUARANTINE})
return {number, math.ceil(math.max(0, entry['until'] - now) * 1000)}
