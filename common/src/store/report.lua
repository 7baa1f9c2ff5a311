-- report: record how a step ended; the first outcome wins. Unblocks or skips what depends on it, and says who must act.
-- ARGV 2 step  3 epoch  4 outcome  5 record  6.. usage and events
-- -> {recorded, owed} | {stale} | {finished, status}
local step, epoch, outcome = ARGV[2], ARGV[3], ARGV[4]
local status = redis.call('HGET', RUN, 'status')
if not status then return { 'stale' } end
if final(status) then return { 'finished', status } end
local attempt = fenced(step, epoch)
if not attempt then
  local state, last = slot_get(step, 'state', 'epoch')
  if state and ended(state) and last == epoch then return { 'recorded', still_owed() } end -- the reply to this very call was lost
  return { 'stale' }
end

redis.call('HSET', RESULTS, step, ARGV[5])
redis.call('ZREM', FLIGHT, step)
redis.call('SREM', OPEN, step)
slot_set(step, 'state', outcome)
account(6, step, attempt, epoch)
local length, following = slot_get(step, 'journal', 'next')
for i = 0, tonumber(length or 0) - 1 do redis.call('HDEL', JOURNAL, step .. ':' .. i) end

local newly_ready = false
if outcome == 'succeeded' then
  each(following, function(dependent)
    local waiting = redis.call('HINCRBY', STEPS, dependent .. ':waiting', -1)
    if waiting == 0 and slot_get(dependent, 'state') == 'waiting' then
      slot_set(dependent, 'state', 'ready')
      redis.call('ZADD', READY, now, dependent)
      newly_ready = true
    end
  end)
else
  local failed = { { step, following } }
  while #failed > 0 do
    local because, dependents = unpack(table.remove(failed))
    each(dependents, function(dependent)
      local state, further = slot_get(dependent, 'state', 'next')
      if state == 'waiting' then
        slot_set(dependent, 'state', 'skipped')
        redis.call('SREM', OPEN, dependent)
        redis.call('HSET', RESULTS, dependent, '{"outcome":"skipped","error":"step ' .. because .. ' did not succeed"}')
        event('step_skipped', dependent, nil, nil, '{"because":' .. because .. '}')
        failed[#failed + 1] = { dependent, further }
      end
    end)
  end
end
return { 'recorded', owed(newly_ready) }
