-- What every script shares. The loader puts this file before each of them.
--
-- KEYS[1..12]  what all runs share, in the order of keys.SHARED_KEYS
-- KEYS[13..30] the keys of one run, in the order of keys.RUN_KEYS; absent where a script touches no run
-- ARGV[1]      the run's id, where a script touches a run
--
-- A script reads and checks everything first and writes then, so that an error leaves nothing half done. Each may be
-- repeated with the same effect. The server tests its memory limit at a script's first write only: a script that must
-- go through when memory is full begins with `pass_when_full`, one that must be refused begins with a write that grows.
local RUNS, ACTIVE, GRAPHS, PLACES, CONTROL = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local LEASES, SCHEDULER, WORKERS, WORKER_RECORDS, WORKER_TAILS = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local DURATIONS, QUARANTINE = KEYS[11], KEYS[12]
local META, CONTEXT, SPECS, MESSAGES, BLOBS = KEYS[13], KEYS[14], KEYS[15], KEYS[16], KEYS[17]
local STATES, DIGESTS, RESULTS, ERRORS, FACTS = KEYS[18], KEYS[19], KEYS[20], KEYS[21], KEYS[22]
local CHARGES, CAUSES, INFLIGHT, BATCHES, HOLDS, EVENTS = KEYS[23], KEYS[24], KEYS[25], KEYS[26], KEYS[27], KEYS[28]
local DEATHS, REPAIRS = KEYS[29], KEYS[30]

local UNTOUCHED_SECONDS = 2592000
local RENEWAL_SECONDS = 3600
local IS_OPEN = {p = true, q = true, x = true, t = true}
local IS_OVER = {succeeded = true, failed = true, cancelled = true}
local NO_DIGEST = string.rep('\0', 32)
local IS_SHARED = {}
for i = 1, 12 do IS_SHARED[KEYS[i]] = true end

-- The server's clock in seconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function seconds_text(seconds)
  return string.format('%.6f', seconds)
end

-- A removal that never finds anything: the server allows it when memory is full, and tests no later write.
local function pass_when_full()
  redis.call('ZREM', LEASES, '')
end

-- Tell followers. One entry; its number `n` lets them notice that entries are missing.
local function tell(what, ...)
  local number = redis.call('HINCRBY', META, 'sequence', 1)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', 100000, '*', 'n', number, 'w', what, ...)
end

-- Tell schedulers that the set of active runs changed.
local function tell_change(run_id)
  redis.call('XADD', CONTROL, 'MAXLEN', '~', 1000, '*', 'run', run_id)
end

-- Give those of `written` that have no lifetime one; and once an hour, while the run is not over, renew all.
local function keep_lifetimes(written)
  local life = UNTOUCHED_SECONDS
  local meta = META and redis.call('HMGET', META, 'phase', 'touched') or {}
  if IS_OVER[meta[1]] then
    life = math.max(redis.call('TTL', META), 1)
  elseif meta[1] and now - tonumber(meta[2]) > RENEWAL_SECONDS then
    redis.call('HSET', META, 'touched', seconds_text(now))
    redis.call('ZADD', RUNS, seconds_text(now + UNTOUCHED_SECONDS), ARGV[1])
    for i, key in ipairs(KEYS) do
      local left = redis.call('TTL', key)
      if left >= -1 and left < UNTOUCHED_SECONDS then redis.call('EXPIRE', key, UNTOUCHED_SECONDS) end
    end
  end
  for _, key in ipairs(written) do
    if redis.call('TTL', key) == -1 then
      redis.call('EXPIRE', key, IS_SHARED[key] and UNTOUCHED_SECONDS or life)
    end
  end
end

-- Whether (number, holder) is no longer the right to dispatch.
local function is_fenced(number, holder)
  local epoch = redis.call('HMGET', SCHEDULER, 'number', 'holder')
  return epoch[1] ~= number or epoch[2] ~= holder
end

-- Read the cells of `width` bytes at the given indices of a packed string; one read where they lie close together.
local function read_cells(key, width, indices)
  local cells, lowest, highest = {}, math.huge, -1
  for _, index in ipairs(indices) do
    if index < lowest then lowest = index end
    if index > highest then highest = index end
  end
  if highest - lowest < 8 * #indices then
    local span = redis.call('GETRANGE', key, lowest * width, highest * width + width - 1)
    for i, index in ipairs(indices) do
      local start = (index - lowest) * width
      cells[i] = string.sub(span, start + 1, start + width)
    end
  else
    for i, index in ipairs(indices) do
      cells[i] = redis.call('GETRANGE', key, index * width, index * width + width - 1)
    end
  end
  return cells
end

-- Write cells of `width` bytes; one write for each stretch of consecutive indices.
local function write_cells(key, width, indices, cells)
  local i, count = 1, #indices
  while i <= count do
    local last = i
    while last < count and indices[last + 1] == indices[last] + 1 do last = last + 1 end
    redis.call('SETRANGE', key, indices[i] * width, table.concat(cells, '', i, last))
    i = last + 1
  end
end

local function numbers(list, from, to)
  local result = {}
  for i = from, to do result[#result + 1] = tonumber(list[i]) end
  return result
end

-- The names that tasks have as fields of hashes. The server's own way to make text of a number takes far longer.
local function fields(tasks)
  local names = {}
  for i, task in ipairs(tasks) do names[i] = string.format('%d', task) end
  return names
end

-- Split an in-flight entry into its batch and the lineage that DISPATCH expects.
local function split_entry(entry)
  if not entry then return nil, nil end
  local at = string.find(entry, '\n', 1, true)
  return string.sub(entry, 1, at - 1), string.sub(entry, at + 1)
end

-- Split a hold into instance, sequence, marks and begun. A mark is '.' while its task is with the holder, '+' once a
-- success of it was accepted from this batch, '-' after any other end. `begun` is the task that the holder last said it
-- runs, or empty.
local function split_hold(hold)
  if not hold then return nil, nil, nil, nil end
  return string.match(hold, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)$')
end

local function hold_text(instance, sequence, marks, begun)
  return table.concat({instance, sequence, marks, begun}, '\n')
end

-- Put those of `tasks` that are in state `code` under `batch` back to PENDING and return them.
local function put_back(tasks, batch, code)
  local back, cells = {}, {}
  if #tasks == 0 then return back end
  local states = read_cells(STATES, 2, tasks)
  local entries = redis.call('HMGET', INFLIGHT, unpack(tasks))
  for i, task in ipairs(tasks) do
    if string.sub(states[i], 1, 1) == code and split_entry(entries[i]) == batch then
      back[#back + 1] = task
      cells[#cells + 1] = 'p' .. string.sub(states[i], 2, 2)
    end
  end
  write_cells(STATES, 2, back, cells)
  return back
end

-- Under which name the death certificate of an attempt is kept: a task keeps those of its latest attempts.
local function slot_of(task, attempt)
  return task .. ' ' .. attempt % 8
end

-- Forget a batch and its lease.
local function drop_batch(run_id, batch)
  redis.call('HDEL', BATCHES, batch)
  redis.call('HDEL', HOLDS, batch)
  redis.call('ZREM', LEASES, run_id .. ' ' .. batch)
end

-- The key of another run's record.
local function meta_of(run_id, other)
  return string.sub(META, 1, -#(run_id .. ':meta') - 1) .. other .. ':meta'
end

-- Whether there is a record of `other`. A run without one is gone, whatever else names it: a client that attached to
-- it would find it unknown for ever.
local function is_kept(run_id, other)
  return redis.call('EXISTS', meta_of(run_id, other)) == 1
end

-- The active run that keeps this ended one from becoming active again, or nil.
local function in_the_way(run_id)
  local record = cjson.decode(redis.call('HGET', META, 'record'))
  for _, pair in ipairs({{GRAPHS, record.key}, {PLACES, record.place}}) do
    local other = pair[2] ~= '' and redis.call('HGET', pair[1], pair[2])
    local is_other = other and other ~= run_id and redis.call('SISMEMBER', ACTIVE, other) == 1
    if is_other and is_kept(run_id, other) then return other end
  end
  return nil
end

-- Enter a run among the active ones.
local function enter_active(run_id)
  local record = cjson.decode(redis.call('HGET', META, 'record'))
  if record.key ~= '' then redis.call('HSET', GRAPHS, record.key, run_id) end
  if record.place ~= '' then redis.call('HSET', PLACES, record.place, run_id) end
  redis.call('SADD', ACTIVE, run_id)
  redis.call('ZADD', RUNS, seconds_text(now + UNTOUCHED_SECONDS), run_id)
  tell_change(run_id)
end

-- For how many seconds an ended run is kept: as its field says, else, where that is rubbish, as its record
-- does, else for long.
local function keep_of(field, record)
  for _, text in ipairs({field or '', record and record.keep_seconds or '', UNTOUCHED_SECONDS}) do
    local seconds = tonumber(text)
    if seconds and seconds >= 0 and seconds < 1e11 then return seconds end
  end
end

-- End a run, which both registries have let go of: it leaves the active runs, and its keys expire after `keep` seconds.
local function end_run(run_id, phase, keep)
  for _, batch in ipairs(redis.call('HKEYS', BATCHES)) do redis.call('ZREM', LEASES, run_id .. ' ' .. batch) end
  redis.call('DEL', BATCHES, HOLDS, INFLIGHT)
  redis.call('HSET', META, 'phase', phase, 'paused', '0', 'ended_at', seconds_text(now))
  tell('ended', 'p', phase)
  keep = math.max(math.ceil(keep), 1)
  for i = 13, #KEYS do redis.call('EXPIRE', KEYS[i], keep) end
  redis.call('ZADD', RUNS, seconds_text(now + keep), run_id)
  if redis.call('TTL', RUNS) < keep then redis.call('EXPIRE', RUNS, math.max(keep, UNTOUCHED_SECONDS)) end
  redis.call('SREM', ACTIVE, run_id)
  tell_change(run_id)
  keep_lifetimes({EVENTS, CONTROL})
end

-- Make an ended run active again. `rested` is for how many seconds it has been over before.
local function reopen(run_id)
  local at = redis.call('HMGET', META, 'ended_at', 'rested')
  local rested = math.max(now - (tonumber(at[1] or '') or now), 0) + (tonumber(at[2] or '') or 0)
  redis.call('HSET', META, 'phase', 'active', 'touched', '0', 'rested', seconds_text(rested))
  redis.call('HDEL', META, 'ended_at')
  enter_active(run_id)
end

-- What is held against a host; nil for none, or for a record that is damaged.
local function quarantine_of(text)
  local is_json, entry = pcall(cjson.decode, text or '')
  local is_entry = is_json and type(entry) == 'table' and type(entry['until']) == 'number'
  if not is_entry or type(entry.evidence) ~= 'table' then return nil end
  for _, at in pairs(entry.evidence) do
    if type(at) ~= 'number' then return nil end
  end
  return entry
end

-- The queues from which a worker takes nothing: its host is in quarantine, and a worker of its kind (Python minor,
-- protocol) on another host, which is not, serves them. So a queue is never left without a worker.
local function barred_queues(instance)
  if redis.call('EXISTS', QUARANTINE) == 0 then return {} end
  local function worker(name)
    local text = redis.call('HGET', WORKER_RECORDS, name)
    local is_json, record = pcall(cjson.decode, text and string.match(text, '^[^ ]* (.*)$') or '')
    local is_record = is_json and type(record) == 'table' and type(record.queues) == 'table'
    return is_record and type(record.host) == 'string' and type(record.python) == 'string' and record or nil
  end
  local function is_quarantined(host)
    local entry = quarantine_of(redis.call('HGET', QUARANTINE, host))
    return entry ~= nil and entry['until'] > now
  end
  local function kind(record) return tostring(string.match(record.python, '^%d+%.%d+')) .. ' ' .. tostring(record.protocol) end
  local own = worker(instance)
  if not own or not is_quarantined(own.host) then return {} end
  local wanted, missing, served, barred = {}, 0, {}, {}
  for _, queue in ipairs(own.queues) do
    if not wanted[queue] then wanted[queue], missing = true, missing + 1 end
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '(' .. seconds_text(now), '+inf')) do
    -- There may be ten thousand, and the server serves nobody else meanwhile.
    if missing == 0 then break end
    local other = worker(name)
    if other and not other.draining and kind(other) == kind(own) and not is_quarantined(other.host) then
      for _, queue in ipairs(other.queues) do
        if wanted[queue] and not served[queue] then served[queue], missing = true, missing - 1 end
      end
    end
  end
  for _, queue in ipairs(own.queues) do
    if served[queue] then barred[#barred + 1] = queue end
  end
  return barred
end
