-- renew: extend the lease.
-- ARGV 2 slot  3 epoch  4 lease ms
-- -> kept | lost | ended
local status = redis.call('HGET', RUN, 'status')
if not status or final(status) then return 'ended' end
if not fenced(ARGV[2], ARGV[3]) then return 'lost' end
redis.call('ZADD', FLIGHT, now + tonumber(ARGV[4]), ARGV[2])
return 'kept'
