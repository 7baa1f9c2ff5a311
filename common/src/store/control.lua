-- control: do what somebody wants of the run, once per id. The first decision wins; later ones are told what it was. Whatever the
-- answer, it stands in the audit trail with who and why.
-- ARGV 2 id  3 command  4 by  5 reason  6 feedback or plan  7 revision or empty  8 run id  9 rejections max  10 controls max
--      11 why it cannot be done whatever the run's state, or empty  12 the feedback, cut, for the audit trail
-- -> {none} | {JSON of the reply, plan owed, dispatch owed, summary owed}   (owed: 0 or 1)
local id, command, by, reason, text, seen = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local status = redis.call('HGET', RUN, 'status')
if not status then return { 'none' } end
local halted, why, paused, decision, revision, retried, rejections =
  run_get('halt', 'halt_reason', 'paused', 'approval_decision', 'revision', 'retried', 'rejections')
local because = reason ~= '' and ': ' .. reason or ''

local function cancel()
  if status == 'cancelled' or halted == 'cancelled' then return 'repeated', 'the run was cancelled before: ' .. (why or '') end
  if final(status) then return 'refused', 'the run has ended: ' .. status end
  halt('cancelled', 'cancelled by ' .. by .. because, true)
  return 'accepted', 'the run is cancelled'
end

local function pause()
  if final(status) then return 'refused', 'the run has ended: ' .. status end
  if set(halted) or status == 'summarizing' then return 'refused', 'the run is about to end' end
  if set(paused) then return 'repeated', 'the run was paused before by ' .. paused end
  redis.call('HSET', RUN, 'paused', by, 'resumed', '')
  if status == 'running' then redis.call('HSET', RUN, 'status', 'paused') end
  return 'accepted', 'the run is paused; what runs goes on, nothing new starts'
end

local function resume()
  if final(status) then return 'refused', 'the run has ended: ' .. status end
  if not set(paused) then
    local resumed = run_get('resumed')
    if set(resumed) then return 'repeated', 'the run was resumed before by ' .. resumed end
    return 'refused', 'the run is not paused'
  end
  redis.call('HSET', RUN, 'paused', '', 'resumed', by)
  if status == 'paused' then redis.call('HSET', RUN, 'status', 'running') end
  drained()
  return 'accepted', 'the run goes on'
end

-- No step of the plan has started: it makes room for another one.
local function plan_again()
  for _, step in ipairs(redis.call('HKEYS', SPECS)) do
    for _, field in ipairs({ 'state', 'since', 'attempt', 'claims', 'parks', 'again', 'sent', 'token', 'journal', 'waiting', 'deps', 'next', 'anyway', 'settled' }) do
      redis.call('HDEL', STEPS, step .. ':' .. field)
    end
    redis.call('SREM', OPEN, step)
  end
  redis.call('DEL', SPECS, READY)
  redis.call('HSET', RUN, 'status', 'planning')
  open_plan(nil)
end

local verbs = { approve = 'approved', reject = 'rejected', edit = 'replaced' }
local function decide()
  if status ~= 'awaiting_approval' then
    if set(decision) then
      -- Another feedback or another plan is another decision.
      local same = command == 'approve' and string.find(decision, 'the plan is approved', 1, true) == 1
      return same and 'repeated' or 'refused', 'decided before: ' .. decision
    end
    return 'refused', 'the run does not wait for approval'
  end
  if seen ~= '' and seen ~= revision then return 'refused', 'revision ' .. revision .. ' of the plan is current, not ' .. seen end
  local said = 'the plan is ' .. verbs[command] .. ' by ' .. by .. because
  redis.call('HSET', RUN, 'approval_decision', said)
  if command == 'approve' then
    redis.call('HSET', RUN, 'status', set(paused) and 'paused' or 'running')
  elseif command == 'edit' then
    redis.call('HSET', RUN, 'edited', text)
    plan_again()
  elseif tonumber(rejections or 0) >= tonumber(ARGV[9]) then
    halt('cancelled', 'the plan was rejected too often', true)
    return 'accepted', 'the run is cancelled: its plan was rejected too often'
  else
    redis.call('HINCRBY', RUN, 'rejections', 1)
    redis.call('HSET', RUN, 'feedback', text)
    plan_again()
  end
  return 'accepted', said .. (set(paused) and command == 'approve' and '; the run is paused' or '')
end

local function retry()
  if not final(status) then
    if set(retried) then return 'repeated', 'the run goes on again since a retry by ' .. retried end
    return 'refused', 'the run has not ended'
  end
  if status == 'succeeded' then return 'refused', 'the run has succeeded, there is nothing to retry' end
  if status == 'cancelled' then return 'refused', 'a cancelled run stays as it is' end
  if halted == 'budget' then return 'refused', 'the budget of the run is used up: ' .. why end
  for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
  redis.call('DEL', RESULT)
  redis.call('HDEL', RUN, 'finished_at', 'finished_by', 'error', 'halt', 'halt_reason', 'paused')
  ending = false
  redis.call('HSET', RUN, 'retried', by, 'replans', 0, 'backlog', 0)
  local deadline = redis.call('HGET', RUN, 'deadline')
  if set(deadline) then redis.call('HSET', RUN, 'deadline_at', now + tonumber(deadline)) end
  if redis.call('HLEN', SPECS) == 0 then
    redis.call('HSET', RUN, 'status', 'planning')
    open_plan(nil)
    return 'accepted', 'the run is planned again'
  end
  local approval, action = run_get('approval_timeout', 'approval_action')
  local unseen = set(approval) and not set(decision)
  redis.call('HSET', RUN, 'status', unseen and 'awaiting_approval' or 'running')
  local again = {}
  for _, step in ipairs(numbers(redis.call('HKEYS', SPECS))) do
    local state, gone = slot_get(step, 'state', 'retired')
    if state ~= 'succeeded' and gone ~= '1' then
      renewed(step, 'waiting')
      slot_set(step, 'settled', 0)
      redis.call('HDEL', RESULTS, step)
      redis.call('SADD', OPEN, step)
      again[#again + 1] = step
    end
  end
  start(again)
  if unseen then
    -- Nobody had approved the plan when the run ended.
    local deadline = now + tonumber(approval)
    redis.call('HSET', RUN, 'approval_until', deadline)
    event('approval_awaited', nil, nil, nil, '{"revision":' .. revision .. ',"until_ms":' .. string.format('%.0f', deadline)
      .. ',"otherwise":"' .. action .. '","quote":null}')
    return 'accepted', 'the plan waits for approval again'
  end
  drained()
  return 'accepted', 'the run goes on from ' .. #again .. (#again == 1 and ' step' or ' steps') .. ' that had not succeeded'
end

local commands = { cancel = cancel, pause = pause, resume = resume, approve = decide, reject = decide, edit = decide, retry = retry }
local reply = redis.call('HGET', CONTROLS, id)
if not reply then
  local answer, message = 'refused', ARGV[11]
  local full = redis.call('HLEN', CONTROLS) >= tonumber(ARGV[10])
  if full and command ~= 'cancel' then message = 'the run has had too many commands, only cancel is taken' end
  if message == '' then answer, message = commands[command]() end
  status = redis.call('HGET', RUN, 'status')
  event('controlled', nil, nil, nil, cjson.encode({
    id = id, command = command, by = by, reason = reason, feedback = ARGV[12], answer = answer, message = message,
  }))
  reply = cjson.encode({ version = 1, run_id = ARGV[8], command = command, answer = answer, message = message, status = status })
  if not full or command == 'cancel' then redis.call('HSET', CONTROLS, id, reply) end
  if final(status) then
    -- The trail of a run that has ended keeps its time to live; a key that is new gets the same.
    local left = redis.call('PTTL', RUN)
    if left >= 0 then redis.call('PEXPIRE', CONTROLS, math.max(left, 1)); redis.call('PEXPIRE', EVENTS, math.max(left, 1)) end
  end
end
status = redis.call('HGET', RUN, 'status')
local plan = slot_get('plan', 'state') == 'dispatched' and status ~= 'paused' and not final(status)
local dispatch = status == 'running' and redis.call('ZCOUNT', READY, '-inf', now) > 0
local summary = status == 'summarizing' and slot_get('summary', 'state') == 'dispatched'
return { reply, plan and 1 or 0, dispatch and 1 or 0, summary and 1 or 0 }
