-- What every verb starts with. The keys of one run, all with the hash tag {<run_id>}, so in one slot of a cluster:
--
-- KEYS  name      type        written by                       holds
--  1    run       hash        open_run, every verb             see below
--  2    plan      hash        put_plan                         revision -> JSON {revision, reason, diff, quote, plan}
--  3    specs     hash        put_plan                         step -> JSON of the step, of every revision
--  4    steps     hash        every verb                       <slot>:<field>, see below
--  5    results   hash        report                           step -> JSON of its record
--  6    ready     sorted set  put_plan, report, retry          step -> when it may be dispatched, ms
--  7    flight    sorted set  take_ready, claim, renew         slot -> when its lease or its wait for a claim ends, ms
--  8    open      set         put_plan, report                 steps that have not ended, and `plan` while it is owed: empty = drained
--  9    journal   hash        journal, take_ready              <slot>:<index> -> JSON of one turn; token:<token> -> steps it took
-- 10    events    stream      every verb                       the audit trail
-- 11    result    string      finish                           the result document
-- 12    news      set         report                           ended steps that the planner is to decide on
-- 13    controls  hash        control                          id of a command -> JSON of its reply
--
-- Fields of a run: schema (the version of all of these keys; absent means 1), status, objective, request, revision, window, backlog (1: ready steps wait for the window); reply_to,
-- correlation_id, traceparent; created_at, finished_at, finished_by, error; what was used: model_calls, tool_calls, input_tokens,
-- output_tokens, cost_nanos, estimated; limits: max_<what>, reserve_<what> (only the answer may use that), held_<what> (reserved by calls
-- under way), limited (1: there are any); replan (policy), replans, max_replans; approval_timeout, approval_action, approval_until,
-- approval_decision, rejections, feedback, edited; deadline (ms), deadline_at; halt (kind), halt_reason; paused,
-- resumed, retried (by whom).
--
-- Fields of a slot (plan, a step number, summary): state, since, attempt, epoch (fencing), claims, parks, again (retry or park), sent
-- (dispatches in a row without a claim), mid (message of the holder), nonce (of its claim), worker, taken (each with a comma: the epochs that it
-- was taken over from within their leases and whose holders have not said that they live), token (of its dispatch), journal
-- (length), held (what its holder has reserved) and held_n (the last reservation); of a step also waiting (dependencies that it still
-- waits for), deps, next (both lists of numbers with commas), anyway (1: runs when a dependency failed), settled (1: what waits for it has
-- been told that it did not succeed), retired (1: not in the plan any more).
--
-- A run keeps the schema that it was opened with. One of a later schema than KEYS_VERSION belongs to a newer release: every verb answers
-- {newer, schema} then, and neither reads nor changes anything else of it.
--
-- No key expires while the run is live; finish gives all of them their time to live.
-- ARGV[1] is the time in ms when a test gives one, else empty: then it is the server's. Payloads are opaque to all scripts.
local RUN, PLAN, SPECS, STEPS, RESULTS, READY, FLIGHT, OPEN, JOURNAL, EVENTS, RESULT, NEWS, CONTROLS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]

local schema = tonumber(redis.call('HGET', RUN, 'schema') or 1)
if schema > KEYS_VERSION then return { 'newer', schema } end

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The id of the next event: never before the last one, even if the clock has gone back.
local function event_id()
  if ARGV[1] == '' then return '*' end
  local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
  local ms = last and tonumber(string.match(last[1], '^%d+')) or 0
  return string.format('%.0f-*', math.max(now, ms))
end

local function final(status)
  return status == 'succeeded' or status == 'partial' or status == 'failed' or status == 'cancelled'
end

local function ended(state)
  return state == 'succeeded' or state == 'failed' or state == 'skipped' or state == 'cancelled'
end

-- Whether a field holds something: absent and empty mean the same.
local function set(value)
  return value and value ~= ''
end

local function event(kind, slot, attempt, epoch, data)
  local entry = { 'XADD', EVENTS, 'MAXLEN', '~', EVENTS_MAX, event_id(), 'type', kind }
  if slot then entry[#entry + 1] = 'slot'; entry[#entry + 1] = slot end
  if attempt then entry[#entry + 1] = 'attempt'; entry[#entry + 1] = attempt end
  if epoch then entry[#entry + 1] = 'epoch'; entry[#entry + 1] = epoch end
  entry[#entry + 1] = 'data'; entry[#entry + 1] = data
  redis.call(unpack(entry))
end

local function run_get(...)
  return unpack(redis.call('HMGET', RUN, ...))
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

-- Step numbers of a set, or of the fields of a hash, in their order.
local function numbers(members)
  table.sort(members, function(a, b) return (tonumber(a) or 0) < (tonumber(b) or 0) end)
  return members
end

-- What the slot that was fenced last has reserved: `account` is always about that one.
local fenced_holds

-- What a budget counts, in the order in which reservations name it.
local COUNTED = { 'model_calls', 'tool_calls', 'tokens', 'cost_nanos' }

-- Gives back what the slot's holder had reserved. `spent`: nobody will say what the calls took, so they count at their estimate.
-- `held`: what that is, where the caller knows it.
local function unreserve(slot, spent, held)
  if held == nil then held = slot_get(slot, 'held') end
  if not set(held) then return end
  local i = 0
  each(held, function(amount)
    i = i + 1
    if amount == '0' then return end
    redis.call('HINCRBY', RUN, 'held_' .. COUNTED[i], '-' .. amount)
    if spent then
      redis.call('HINCRBY', RUN, COUNTED[i] == 'tokens' and 'input_tokens' or COUNTED[i], amount)
      redis.call('HSET', RUN, 'estimated', 1)
    end
  end)
  slot_set(slot, 'held', '')
end

-- The arguments from ARGV[at]: usage (model calls, tool calls, input tokens, output tokens, cost, estimated), a count of events,
-- and type and data of each. Settles what the slot's holder had reserved, adds the usage to the run and the events to the trail;
-- gives the index after them.
local function account(at, slot, attempt, epoch)
  unreserve(slot, false, fenced_holds)
  for i, field in ipairs({ 'model_calls', 'tool_calls', 'input_tokens', 'output_tokens', 'cost_nanos' }) do
    if ARGV[at + i - 1] ~= '0' then redis.call('HINCRBY', RUN, field, ARGV[at + i - 1]) end
  end
  if ARGV[at + 5] == '1' then redis.call('HSET', RUN, 'estimated', 1) end
  local count = tonumber(ARGV[at + 6])
  for i = 0, count - 1 do
    event(ARGV[at + 7 + 2 * i], slot, attempt, epoch, ARGV[at + 8 + 2 * i])
  end
  return at + 7 + 2 * count
end

-- How long a message may wait for its claim before it is sent again: doubled with every dispatch that came to nothing.
local function patience(sent)
  return DISPATCH_TIMEOUT_MS * 2 ^ math.min(sent, 6)
end

-- Only the holder of the current epoch may write. Gives the slot's attempt, or nil.
local function fenced(slot, epoch)
  local state, current, attempt, held = slot_get(slot, 'state', 'epoch', 'attempt', 'held')
  if state ~= 'running' or current ~= epoch then return nil end
  fenced_holds = held
  return attempt
end

local function forget_journal(slot, length)
  length = tonumber(length or 0)
  if length == 0 then return end
  for i = 0, length - 1 do redis.call('HDEL', JOURNAL, slot .. ':' .. i) end
  slot_set(slot, 'journal', 0)
end

-- A slot that is to be worked on from the beginning, by whoever claims it; with further fields and values. Its epochs go on.
local function renewed(slot, state, ...)
  forget_journal(slot, slot_get(slot, 'journal'))
  slot_set(slot, 'state', state, 'since', now, 'attempt', 1, 'claims', 0, 'parks', 0, 'again', '', 'sent', 0, 'token', '', ...)
end

-- A step that will not run (on) for `why`: skipped or cancelled.
local function close(step, state, why)
  slot_set(step, 'state', state, 'since', now)
  redis.call('SREM', OPEN, step)
  redis.call('ZREM', READY, step)
  redis.call('ZREM', FLIGHT, step)
  redis.call('HSET', RESULTS, step, '{"outcome":"' .. state .. '","error":' .. cjson.encode(why) .. '}')
end

-- Closes a step that waits for `because`.
local function skip(step, because)
  close(step, 'skipped', 'step ' .. because .. ' did not succeed')
  event('step_skipped', step, nil, nil, '{"because":' .. because .. '}')
end

-- Why the run is ending, if it is; false if not; nil as long as nobody has asked. `halt` and `retry` change it.
local ending

-- A step that may be dispatched from `at` on, unless its run is ending.
local function make_ready(step, at)
  if ending == nil then
    local halted, why = run_get('halt', 'halt_reason')
    ending = set(halted) and why or false
  end
  if ending then return close(step, 'cancelled', ending) end
  slot_set(step, 'state', 'ready', 'since', now)
  redis.call('ZREM', FLIGHT, step)
  redis.call('ZADD', READY, at, step)
end

local function plan_is_open()
  local state = slot_get('plan', 'state')
  return state == 'dispatched' or state == 'running' or state == 'ready'
end

-- Steps in flight, while there are any: the plan may fly as well and does not count for the window, the answer only flies alone.
local function in_flight()
  local count = redis.call('ZCARD', FLIGHT)
  if redis.call('ZSCORE', FLIGHT, 'plan') then count = count - 1 end
  return count
end

local function summary_owed()
  renewed('summary', 'dispatched')
  redis.call('ZADD', FLIGHT, now + patience(0), 'summary')
end

local function drained()
  if redis.call('SCARD', OPEN) > 0 then return false end
  local status, halt = run_get('status', 'halt')
  if status == 'running' or (set(halt) and not final(status) and status ~= 'summarizing') then
    redis.call('HSET', RUN, 'status', 'summarizing')
    summary_owed()
    event('drained', nil, nil, nil, '{}')
    return true
  end
  return status == 'summarizing'
end

-- Who must act: 'summary', 'planner' or 'nothing'. While ready steps wait for the run's window, the planner is told only when the
-- flight has fallen to half of it, so that a wide run does not cost a report per step.
local function owed(newly_ready, plan)
  if drained() then return 'summary' end
  if plan then return 'planner' end
  local window, backlog = run_get('window', 'backlog')
  if backlog ~= '1' then return newly_ready and 'planner' or 'nothing' end
  local flight = in_flight()
  if flight == math.floor(tonumber(window) / 2) or flight == 0 then return 'planner' end
  return 'nothing'
end

-- The same for a redelivery, which cannot know what its first delivery still published: rather once too often.
local function still_owed()
  if redis.call('HGET', RUN, 'status') == 'summarizing' then return 'summary' end
  if slot_get('plan', 'state') == 'dispatched' or redis.call('ZCOUNT', READY, '-inf', now) > 0 then return 'planner' end
  return 'nothing'
end

-- The plan is to be made, or looked at again.
local function open_plan(data)
  renewed('plan', 'dispatched')
  redis.call('ZADD', FLIGHT, now + patience(0), 'plan')
  redis.call('SADD', OPEN, 'plan')
  if data then event('replan_owed', nil, nil, nil, data) end
end

local function close_plan(state)
  slot_set('plan', 'state', state, 'since', now)
  redis.call('ZREM', FLIGHT, 'plan')
  redis.call('SREM', OPEN, 'plan')
end

-- Whether the planner is to decide when a step has ended like this.
local function asks_planner(outcome)
  local policy, halt, replans, most = run_get('replan', 'halt', 'replans', 'max_replans')
  if policy == 'never' or (policy == 'on_failure' and outcome == 'succeeded') then return false end
  if set(halt) or tonumber(replans or 0) >= tonumber(most or 0) then return false end
  if outcome ~= 'succeeded' then return policy == 'on_failure' or policy == 'after_each_step' end
  return policy == 'after_each_step' and redis.call('SCARD', OPEN) > 0
end

-- A step did not succeed, and no plan will change that: what waits for it is skipped, and what waits for that, or runs anyway.
-- Whether something became ready.
local function settle(step)
  local newly_ready = false
  local failed = { step }
  while #failed > 0 do
    local because = table.remove(failed)
    local settled, following = slot_get(because, 'settled', 'next')
    if settled ~= '1' then
      slot_set(because, 'settled', 1)
      each(following, function(dependent)
        local state, anyway = slot_get(dependent, 'state', 'anyway')
        if state ~= 'waiting' then return end
        if anyway ~= '1' then
          skip(dependent, because)
          failed[#failed + 1] = dependent
        elseif redis.call('HINCRBY', STEPS, dependent .. ':waiting', -1) == 0 then
          make_ready(dependent, now)
          newly_ready = true
        end
      end)
    end
  end
  return newly_ready
end

-- Makes waiting steps ready that wait for nothing, and skips those that wait in vain. All are counted before any is told: what is told
-- counts down.
local function start(steps)
  local doomed, counted = {}, {}
  for i, step in ipairs(steps) do
    local deps, anyway = slot_get(step, 'deps', 'anyway')
    local waiting = 0
    each(deps, function(dependency)
      local state, settled = slot_get(dependency, 'state', 'settled')
      if state == 'succeeded' then return end
      if not (ended(state) and settled == '1') then
        waiting = waiting + 1
      elseif anyway ~= '1' then
        doomed[i] = doomed[i] or dependency
      end
    end)
    slot_set(step, 'waiting', waiting)
    counted[i] = waiting
  end
  for i, step in ipairs(steps) do
    local state, waiting = 'waiting', counted[i]
    if next(doomed) then
      state, waiting = slot_get(step, 'state', 'waiting')
    end
    if state ~= 'waiting' then
      -- told already, with a step before it
    elseif doomed[i] then
      skip(step, doomed[i])
      settle(step)
    elseif tonumber(waiting) == 0 then
      make_ready(step, now)
    end
  end
end

-- The planner has decided: on the steps in ARGV from `at` (a count first), and on nothing that has ended since. Closes the plan, and
-- opens it again for what came in meanwhile. Whether somebody has to be told.
local function decided(at)
  local told = false
  close_plan('succeeded')
  redis.call('HSET', RUN, 'backlog', 0) -- what was held up by the open plan does not wait for the window
  for i = at + 1, at + tonumber(ARGV[at]) do
    redis.call('SREM', NEWS, ARGV[i])
    local state = slot_get(ARGV[i], 'state')
    if ended(state) and state ~= 'succeeded' then told = settle(ARGV[i]) or told end
  end
  local news = numbers(redis.call('SMEMBERS', NEWS))
  local again = false
  for _, step in ipairs(news) do
    local state = slot_get(step, 'state')
    again = again or asks_planner(state)
  end
  if again then
    open_plan('{"after":' .. news[1] .. '}')
    return told, true
  end
  for _, step in ipairs(news) do
    if slot_get(step, 'state') ~= 'succeeded' then told = settle(step) or told end
  end
  redis.call('DEL', NEWS)
  return told, false
end

-- The run ends early: nothing more is started, and with `abort` what runs is no longer wanted. The answer is owed as soon as nothing
-- runs any more. A pause is over with it: what runs has to come to its end.
local function halt(kind, reason, abort)
  ending = reason
  redis.call('HSET', RUN, 'halt', kind, 'halt_reason', reason, 'paused', '')
  if redis.call('HGET', RUN, 'status') == 'paused' then redis.call('HSET', RUN, 'status', 'running') end
  local cancelled = 0
  for _, slot in ipairs(redis.call('SMEMBERS', OPEN)) do
    local state = slot_get(slot, 'state')
    if state ~= 'running' or abort then
      unreserve(slot, true)
      if slot == 'plan' then
        close_plan('cancelled')
      else
        close(slot, 'cancelled', reason)
        cancelled = cancelled + 1
      end
    end
  end
  redis.call('DEL', NEWS)
  event('halted', nil, nil, nil,
    '{"kind":"' .. kind .. '","reason":' .. cjson.encode(reason) .. ',"cancelled":' .. cancelled .. '}')
  if redis.call('HGET', RUN, 'status') == 'summarizing' and abort then
    unreserve('summary', true)
    summary_owed()
  end
  drained()
end
