-- release: give a slot back unfinished, without counting the claim. The holder's message comes back to somebody. If it already has, and
-- that one has taken over, nothing is given back, but the claim is not counted either: its holder lives.
-- ARGV 2 slot  3 epoch
-- -> kept | lost | ended
local slot = ARGV[2]
if final(redis.call('HGET', RUN, 'status')) then return 'ended' end
if not fenced(slot, ARGV[3]) then
  local state, taken = slot_get(slot, 'state', 'taken')
  local from, to = string.find(taken or '', ARGV[3] .. ',', 1, true)
  if state == 'running' and from and (from == 1 or string.sub(taken, from - 1, from - 1) == ',') then
    redis.call('HINCRBY', STEPS, slot .. ':claims', -1)
    slot_set(slot, 'taken', string.sub(taken, 1, from - 1) .. string.sub(taken, to + 1))
  end
  return 'lost'
end
unreserve(slot, true)
redis.call('HINCRBY', STEPS, slot .. ':claims', -1)
slot_set(slot, 'state', 'dispatched', 'since', now)
redis.call('ZADD', FLIGHT, now + patience(0), slot)
return 'kept'
