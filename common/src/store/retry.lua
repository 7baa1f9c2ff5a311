-- retry: the holder gives its slot back until a later time. `retry` starts a new attempt, `park` (a rate limit) does not.
-- ARGV 2 slot  3 epoch  4 retry | park  5 after ms  6.. usage and events
-- -> {kept, owed} | {lost}
local slot, epoch, after = ARGV[2], ARGV[3], tonumber(ARGV[5])
local attempt = fenced(slot, epoch)
if not attempt then
  local state, last = slot_get(slot, 'state', 'epoch')
  if state == 'ready' and last == epoch then return { 'kept', still_owed() } end -- the reply to this very call was lost
  return { 'lost' }
end
account(6, slot, attempt, epoch)
slot_set(slot, 'state', 'ready', 'claims', 0, 'sent', 0)
redis.call('HINCRBY', STEPS, slot .. (ARGV[4] == 'park' and ':parks' or ':attempt'), 1)
if slot == 'plan' or slot == 'summary' then
  redis.call('ZADD', FLIGHT, now + after, slot)
  return { 'kept', 'nothing' }
end
redis.call('ZREM', FLIGHT, slot)
redis.call('ZADD', READY, now + after, slot)
return { 'kept', owed(false) }
