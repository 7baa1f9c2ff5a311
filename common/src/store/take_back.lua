-- take_back: a message of the slot is a dead letter. Unless somebody else holds the slot, it is to be dispatched again; each
-- time counts as a claim, so that a slot whose messages die again and again is closed as poison in the end.
-- ARGV 2 slot  3 message id  4 event data  5 claims max
-- -> {gone} | {kept} | {plan | dispatch | summary | poisoned}: what is owed now. A slot that has ended owes what its last holder may not
--    have published: the answer, or dispatch.
local slot = ARGV[2]
local status = redis.call('HGET', RUN, 'status')
if not status or final(status) then return { 'gone' } end
local state, attempt, holder = slot_get(slot, 'state', 'attempt', 'mid')
if ended(state) then
  local owes = still_owed()
  return { owes == 'summary' and 'summary' or owes == 'planner' and 'dispatch' or 'kept' }
end
if not state or state == 'waiting' or state == 'ready' then return { 'kept' } end
local leased = tonumber(redis.call('ZSCORE', FLIGHT, slot) or 0) > now
if state == 'running' and holder ~= ARGV[3] and leased then return { 'kept' } end
event('taken_back', slot, attempt, nil, ARGV[4])
unreserve(slot, true)
local claims = redis.call('HINCRBY', STEPS, slot .. ':claims', 1)
local poisoned = claims > tonumber(ARGV[5])
if slot == 'plan' or slot == 'summary' or poisoned then
  slot_set(slot, 'state', 'dispatched', 'since', now)
  redis.call('ZADD', FLIGHT, now + patience(0), slot)
  return { poisoned and 'poisoned' or slot }
end
make_ready(slot, now)
return { drained() and 'summary' or 'dispatch' }
