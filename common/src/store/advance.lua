-- advance: what the run owes now. Takes back slots whose lease or whose wait for a claim is over.
-- -> {gone} | {live, ms until the next look, plan owed, dispatch owed, summary owed}   (owed: 0 or 1)
local status, window = unpack(redis.call('HMGET', RUN, 'status', 'window'))
if not status or final(status) then return { 'gone' } end
local plan, summary = 0, 0
for _, slot in ipairs(redis.call('ZRANGEBYSCORE', FLIGHT, '-inf', now, 'LIMIT', 0, 1000)) do
  local state, attempt, sent = slot_get(slot, 'state', 'attempt', 'sent')
  if state ~= 'ready' then
    event('taken_back', slot, attempt, nil, state == 'running' and '{"why":"lease expired"}' or '{"why":"not claimed in time"}')
  end
  if slot == 'plan' or slot == 'summary' then
    if slot == 'plan' then plan = 1 else summary = 1 end
    slot_set(slot, 'state', 'dispatched', 'sent', tonumber(sent or 0) + 1)
    redis.call('ZADD', FLIGHT, now + patience(tonumber(sent or 0)), slot)
  else
    slot_set(slot, 'state', 'ready')
    redis.call('ZREM', FLIGHT, slot)
    redis.call('ZADD', READY, now, slot)
  end
end
local next_look = now + WAKEUP_INTERVAL_MS
for _, queue in ipairs({ FLIGHT, READY }) do
  local first = redis.call('ZRANGEBYSCORE', queue, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] then next_look = math.min(next_look, tonumber(first[2])) end
end
local ready = redis.call('ZCOUNT', READY, '-inf', now) > 0
local dispatch = ready and redis.call('ZCARD', FLIGHT) < tonumber(window)
-- A retry that came due while the window was full waits for it like any other: the next step that ends must tell.
if ready and not dispatch then redis.call('HSET', RUN, 'backlog', 1) end
return { 'live', next_look - now, plan, dispatch and 1 or 0, summary }
