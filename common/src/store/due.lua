-- due: the runs of one shard whose wake-up time has come. Each is put off a little, so that one planner looks at a time; the half
-- millisecond marks it as taken, see `wake`.
-- ARGV 2 limit
local time = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local runs = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, run in ipairs(runs) do redis.call('ZADD', KEYS[1], now + WAKEUP_LOOK_MS - 0.5, run) end
return runs
