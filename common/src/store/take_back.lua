-- take_back: a message of the slot is a dead letter. Unless somebody holds the slot, it is dispatched again.
-- ARGV 2 slot  3 event data
-- -> {gone} | {kept} | {plan | dispatch | summary}: what is owed now
local slot = ARGV[2]
local status = redis.call('HGET', RUN, 'status')
if not status or final(status) then return { 'gone' } end
local state, attempt = slot_get(slot, 'state', 'attempt')
if not state or ended(state) or state == 'waiting' or state == 'ready' then return { 'kept' } end
if state == 'running' and tonumber(redis.call('ZSCORE', FLIGHT, slot) or 0) > now then return { 'kept' } end
event('taken_back', slot, attempt, nil, ARGV[3])
if slot == 'plan' or slot == 'summary' then
  slot_set(slot, 'state', 'dispatched')
  redis.call('ZADD', FLIGHT, now + patience(0), slot)
  return { slot }
end
slot_set(slot, 'state', 'ready')
redis.call('ZREM', FLIGHT, slot)
redis.call('ZADD', READY, now, slot)
return { 'dispatch' }
