-- wake: look at a run no later than `after` ms from now. A hint: KEYS[1] is one shard of the wake-ups, in a slot of its own.
-- `looked`: whoever has taken the run (`due`) has looked at it. The mark of that gives way then, unless an earlier time has come instead.
-- ARGV 2 run  3 after ms  4 looked: 1 or 0
local time = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local at = ARGV[4] == '1' and redis.call('ZSCORE', KEYS[1], ARGV[2])
if at and tonumber(at) % 1 ~= 0 then return redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2]) end
return redis.call('ZADD', KEYS[1], 'LT', now + tonumber(ARGV[3]), ARGV[2])
