-- advance: what the run owes now. Ends a run whose deadline has come, decides on a plan that nobody has approved in time, and takes
-- back slots whose lease or whose wait for a claim is over.
-- -> {gone} | {live, ms until the next look, plan owed, dispatch owed, summary owed}   (owed: 0 or 1)
local status, window, deadline, approval, action = run_get('status', 'window', 'deadline_at', 'approval_until', 'approval_action')
if not status or final(status) then return { 'gone' } end
local plan, summary = 0, 0
if set(deadline) and now >= tonumber(deadline) and status ~= 'summarizing' then
  halt('deadline', 'the deadline has come', true)
  summary = 1
elseif status == 'awaiting_approval' and now >= tonumber(approval) then
  local message = action == 'approve' and 'the plan is approved: nobody has decided in time' or 'the run is cancelled: nobody has approved its plan in time'
  event('controlled', nil, nil, nil,
    '{"id":"","command":"' .. action .. '","by":"time-out","reason":"","feedback":"","answer":"accepted","message":"' .. message .. '"}')
  redis.call('HSET', RUN, 'approval_decision', message)
  if action == 'approve' then
    redis.call('HSET', RUN, 'status', set(run_get('paused')) and 'paused' or 'running')
  else
    halt('cancelled', 'nobody has approved the plan in time', true)
    summary = 1
  end
end
status = redis.call('HGET', RUN, 'status')
for _, slot in ipairs(redis.call('ZRANGEBYSCORE', FLIGHT, '-inf', now, 'LIMIT', 0, 1000)) do
  local state, attempt, sent = slot_get(slot, 'state', 'attempt', 'sent')
  if state ~= 'ready' then
    event('taken_back', slot, attempt, nil, state == 'running' and '{"why":"lease expired"}' or '{"why":"not claimed in time"}')
  end
  if state == 'running' then unreserve(slot, true) end
  if slot == 'plan' or slot == 'summary' then
    if slot == 'summary' then summary = 1 elseif status ~= 'paused' then plan = 1 end
    slot_set(slot, 'state', 'dispatched', 'since', now, 'sent', tonumber(sent or 0) + 1)
    redis.call('ZADD', FLIGHT, now + patience(tonumber(sent or 0)), slot)
  else
    make_ready(slot, now)
    if drained() then summary = 1 end
  end
end
status = redis.call('HGET', RUN, 'status')
local next_look = now + WAKEUP_INTERVAL_MS
for _, queue in ipairs({ FLIGHT, READY }) do
  local first = redis.call('ZRANGEBYSCORE', queue, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] then next_look = math.min(next_look, tonumber(first[2])) end
end
if set(deadline) and tonumber(deadline) > now then next_look = math.min(next_look, tonumber(deadline)) end
if status == 'awaiting_approval' then next_look = math.min(next_look, tonumber(approval)) end
local observed = redis.call('HGET', RUN, 'replan') == 'after_each_step' and plan_is_open()
local ready = status == 'running' and not observed and redis.call('ZCOUNT', READY, '-inf', now) > 0
local dispatch = ready and in_flight() < tonumber(window)
-- A retry that came due while the window was full waits for it like any other: the next step that ends must tell.
if ready and not dispatch then redis.call('HSET', RUN, 'backlog', 1) end
return { 'live', next_look - now, plan, dispatch and 1 or 0, summary }
