-- wake: look at a run no later than `after` ms from now. A hint: KEYS[1] is one shard of the wake-ups, in a slot of its own.
-- ARGV 2 run  3 after ms
local time = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZADD', KEYS[1], 'LT', now + tonumber(ARGV[3]), ARGV[2])
