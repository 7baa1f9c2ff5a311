-- renew: see that the lease holds for two thirds of its length at least; asked often, written seldom.
-- ARGV 2 slot  3 epoch  4 lease ms
-- -> kept | lost | ended
local status = redis.call('HGET', RUN, 'status')
if not status or final(status) then return 'ended' end
if not fenced(ARGV[2], ARGV[3]) then return 'lost' end
local lease = tonumber(ARGV[4])
local left = tonumber(redis.call('ZSCORE', FLIGHT, ARGV[2]) or 0) - now
if left * 3 < lease * 2 then redis.call('ZADD', FLIGHT, now + lease, ARGV[2]) end
return 'kept'
