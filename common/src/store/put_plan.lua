-- put_plan: store revision n+1 if the current one is n; the first writer wins. Its new and changed steps must not have started, its
-- retired ones not have succeeded.
-- ARGV 2 epoch  3 current revision n  4 JSON of the revision  5 JSON of the quote  6.. usage and events; then, each with its count first:
--      steps put: number, spec, deps, anyway · steps retired · steps with what waits for them: number, next · steps decided on
-- -> {stored, owed} | {lost} | {moved}
local epoch, revision = ARGV[2], tonumber(ARGV[3]) + 1
local status, current, halted = run_get('status', 'revision', 'halt')
current = tonumber(current or 0)
local attempt = fenced('plan', epoch)
if not attempt or current ~= revision - 1 then
  local state, last = slot_get('plan', 'state', 'epoch')
  local stored = current == revision and state ~= 'running' or set(halted) and state == 'succeeded'
  if stored and last == epoch then return { 'stored', still_owed() } end -- the reply to this very call was lost
  return { 'lost' }
end
local put = 6 + 7 + 2 * tonumber(ARGV[12])
local retired = put + 1 + 4 * tonumber(ARGV[put])
for i = put + 1, retired - 1, 4 do
  local state = slot_get(ARGV[i], 'state')
  if state and state ~= 'waiting' and state ~= 'ready' then return { 'moved' } end
end
local following = retired + 1 + tonumber(ARGV[retired])
for i = retired + 1, following - 1 do
  if slot_get(ARGV[i], 'state') == 'succeeded' then return { 'moved' } end
end
local handled = following + 1 + 2 * tonumber(ARGV[following])

if set(halted) then
  -- The run is ending: nothing new starts.
  account(6, 'plan', attempt, epoch)
  decided(handled)
  return { 'stored', owed(false, false) }
end
redis.call('HSET', RUN, 'revision', revision)
redis.call('HSET', PLAN, revision, ARGV[4])
account(6, 'plan', attempt, epoch)
for i = retired + 1, following - 1 do
  local step = ARGV[i]
  if not ended(slot_get(step, 'state')) then
    unreserve(step, true)
    close(step, 'cancelled', 'revision ' .. revision .. ' of the plan dropped it')
  end
  slot_set(step, 'settled', 1, 'retired', 1)
  redis.call('SREM', NEWS, step)
end
local steps = {}
for i = put + 1, retired - 1, 4 do
  local step = ARGV[i]
  steps[#steps + 1] = step
  redis.call('HSET', SPECS, step, ARGV[i + 1])
  redis.call('ZREM', READY, step)
  redis.call('SADD', OPEN, step)
  renewed(step, 'waiting', 'deps', ARGV[i + 2], 'anyway', ARGV[i + 3], 'settled', 0, 'next', '')
end
for i = following + 1, handled - 1, 2 do slot_set(ARGV[i], 'next', ARGV[i + 1]) end
start(steps)

local approval, edited, paused = run_get('approval_timeout', 'edited', 'paused')
if status == 'planning' then
  if set(approval) and not set(edited) then
    local deadline = now + tonumber(approval)
    redis.call('HSET', RUN, 'status', 'awaiting_approval', 'approval_until', deadline, 'approval_decision', '')
    event('approval_awaited', nil, nil, nil, '{"revision":' .. revision .. ',"until_ms":' .. string.format('%.0f', deadline)
      .. ',"otherwise":"' .. redis.call('HGET', RUN, 'approval_action') .. '","quote":' .. ARGV[5] .. '}')
  else
    redis.call('HSET', RUN, 'status', set(paused) and 'paused' or 'running')
  end
  redis.call('HSET', RUN, 'feedback', '', 'edited', '')
else
  redis.call('HINCRBY', RUN, 'replans', 1)
end
local _, again = decided(handled)
return { 'stored', owed(redis.call('ZCOUNT', READY, '-inf', now) > 0, again) }
