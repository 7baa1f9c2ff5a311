-- report: record how a step ended; the first outcome wins. Unblocks or skips what depends on it, or asks the planner, and says who
-- must act.
-- ARGV 2 step  3 epoch  4 outcome  5 record  6.. usage and events
-- -> {recorded, owed} | {stale} | {finished, status}
local step, epoch, outcome = ARGV[2], ARGV[3], ARGV[4]
local status = redis.call('HGET', RUN, 'status')
if not status then return { 'stale' } end
if final(status) then return { 'finished', status } end
local attempt = fenced(step, epoch)
if not attempt then
  local state, last = slot_get(step, 'state', 'epoch')
  if state == outcome and last == epoch then return { 'recorded', still_owed() } end -- the reply to this very call was lost
  return { 'stale' }
end

redis.call('HSET', RESULTS, step, ARGV[5])
redis.call('ZREM', FLIGHT, step)
redis.call('SREM', OPEN, step)
slot_set(step, 'state', outcome, 'since', now)
account(6, step, attempt, epoch)
local length, following = slot_get(step, 'journal', 'next')
forget_journal(step, length)

local newly_ready, plan = false, false
local asks = asks_planner(outcome)
if outcome == 'succeeded' then
  each(following, function(dependent)
    local waiting = redis.call('HINCRBY', STEPS, dependent .. ':waiting', -1)
    if waiting == 0 and slot_get(dependent, 'state') == 'waiting' then
      make_ready(dependent, now)
      newly_ready = true
    end
  end)
elseif not asks then
  newly_ready = settle(step)
end
if asks then
  redis.call('SADD', NEWS, step)
  plan = not plan_is_open()
  if plan then open_plan('{"after":' .. step .. '}') end
end
return { 'recorded', owed(newly_ready, plan) }
