-- release: give a slot back unfinished, without counting the claim. The holder's message comes back to somebody.
-- ARGV 2 slot  3 epoch
-- -> kept | lost | ended
local slot = ARGV[2]
if final(redis.call('HGET', RUN, 'status')) then return 'ended' end
if not fenced(slot, ARGV[3]) then return 'lost' end
unreserve(slot, true)
redis.call('HINCRBY', STEPS, slot .. ':claims', -1)
slot_set(slot, 'state', 'dispatched', 'since', now)
redis.call('ZADD', FLIGHT, now + patience(0), slot)
return 'kept'
