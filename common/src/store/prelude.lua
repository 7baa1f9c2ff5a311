-- What every verb starts with. The keys of one run, all with the hash tag {<run_id>}, so in one slot of a cluster:
--
-- KEYS  name      type        written by                       holds
--  1    run       hash        open_run, every verb             status, objective, request, revision, window, backlog, usage, times
--  2    plan      hash        put_plan                         revision -> JSON {revision, reason, plan}
--  3    specs     hash        put_plan                         step -> JSON of the step
--  4    steps     hash        every verb                       <slot>:<field>, see below
--  5    results   hash        report                           step -> JSON of its record
--  6    ready     sorted set  put_plan, report, retry          step -> when it may be dispatched, ms
--  7    flight    sorted set  take_ready, claim, renew         slot -> when its lease or its wait for a claim ends, ms
--  8    open      set         put_plan, report                 steps that have not ended: empty = drained
--  9    journal   hash        journal, take_ready              <slot>:<index> -> JSON of one turn; token:<token> -> steps it took
-- 10    events    stream      every verb                       the audit trail
-- 11    result    string      finish                           the result document
--
-- Fields of a slot (plan, a step number, summary): state, attempt, epoch (fencing), claims, parks, sent (dispatches in a row
-- without a claim), mid (message of the holder), nonce (of its claim), worker, token (of its dispatch), journal (length);
-- of a step also waiting (dependencies that have not succeeded), deps, next (both lists of numbers with commas).
--
-- No key expires while the run is live; finish gives all of them their time to live.
-- ARGV[1] is the time in ms when a test gives one, else empty: then it is the server's. Payloads are opaque to all scripts.
local RUN, PLAN, SPECS, STEPS, RESULTS, READY, FLIGHT, OPEN, JOURNAL, EVENTS, RESULT =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]

local now, event_id
if ARGV[1] ~= '' then
  now, event_id = tonumber(ARGV[1]), ARGV[1] .. '-*'
else
  local time = redis.call('TIME')
  now, event_id = time[1] * 1000 + math.floor(time[2] / 1000), '*'
end

local function final(status)
  return status == 'succeeded' or status == 'partial' or status == 'failed' or status == 'cancelled'
end

local function ended(state)
  return state == 'succeeded' or state == 'failed' or state == 'skipped' or state == 'cancelled'
end

local function event(kind, slot, attempt, epoch, data)
  local entry = { 'XADD', EVENTS, 'MAXLEN', '~', EVENTS_MAX, event_id, 'type', kind }
  if slot then entry[#entry + 1] = 'slot'; entry[#entry + 1] = slot end
  if attempt then entry[#entry + 1] = 'attempt'; entry[#entry + 1] = attempt end
  if epoch then entry[#entry + 1] = 'epoch'; entry[#entry + 1] = epoch end
  entry[#entry + 1] = 'data'; entry[#entry + 1] = data
  redis.call(unpack(entry))
end

-- The arguments from ARGV[at]: usage (model calls, tool calls, input tokens, output tokens, estimated), a count of events,
-- and type and data of each. Adds the usage to the run and the events to the trail; gives the index after them.
local function account(at, slot, attempt, epoch)
  for i, field in ipairs({ 'model_calls', 'tool_calls', 'input_tokens', 'output_tokens' }) do
    if ARGV[at + i - 1] ~= '0' then redis.call('HINCRBY', RUN, field, ARGV[at + i - 1]) end
  end
  if ARGV[at + 4] == '1' then redis.call('HSET', RUN, 'estimated', 1) end
  local count = tonumber(ARGV[at + 5])
  for i = 0, count - 1 do
    event(ARGV[at + 6 + 2 * i], slot, attempt, epoch, ARGV[at + 7 + 2 * i])
  end
  return at + 6 + 2 * count
end

local function slot_get(slot, ...)
  local fields = {}
  for i, field in ipairs({ ... }) do fields[i] = slot .. ':' .. field end
  return unpack(redis.call('HMGET', STEPS, unpack(fields)))
end

local function slot_set(slot, ...)
  local args = { ... }
  for i = 1, #args, 2 do args[i] = slot .. ':' .. args[i] end
  redis.call('HSET', STEPS, unpack(args))
end

local function each(list, visit)
  for item in string.gmatch(list or '', '[^,]+') do visit(item) end
end

-- How long a message may wait for its claim before it is sent again: doubled with every dispatch that came to nothing.
local function patience(sent)
  return DISPATCH_TIMEOUT_MS * 2 ^ math.min(sent, 6)
end

-- Only the holder of the current epoch may write. Gives the slot's attempt, or nil.
local function fenced(slot, epoch)
  local state, current, attempt = slot_get(slot, 'state', 'epoch', 'attempt')
  if state == 'running' and current == epoch then return attempt end
  return nil
end

local function drained()
  if redis.call('SCARD', OPEN) > 0 then return false end
  if redis.call('HGET', RUN, 'status') == 'running' then
    redis.call('HSET', RUN, 'status', 'summarizing')
    slot_set('summary', 'state', 'dispatched', 'attempt', 1)
    redis.call('ZADD', FLIGHT, now + patience(0), 'summary')
    event('drained', nil, nil, nil, '{}')
  end
  return true
end

-- Who must act after a step left the flight: 'summary', 'planner' or 'nothing'. While ready steps wait for the run's window,
-- the planner is told only when the flight has fallen to half of it, so that a wide run does not cost a report per step.
local function owed(newly_ready)
  if drained() then return 'summary' end
  local window, backlog = unpack(redis.call('HMGET', RUN, 'window', 'backlog'))
  if backlog ~= '1' then return newly_ready and 'planner' or 'nothing' end
  local flight = redis.call('ZCARD', FLIGHT)
  if flight == math.floor(tonumber(window) / 2) or flight == 0 then return 'planner' end
  return 'nothing'
end

-- The same for a redelivery, which cannot know what its first delivery still published: rather once too often.
local function still_owed()
  local status = redis.call('HGET', RUN, 'status')
  if status == 'summarizing' then return 'summary' end
  if redis.call('ZCOUNT', READY, '-inf', now) > 0 then return 'planner' end
  return 'nothing'
end
