-- live: the runs of one shard of the wake-ups: those that have not ended.
-- ARGV 2 limit
-- -> {how many there are, ms by which the earliest wake-up is late, runs, earliest first}
local time = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or time[1] * 1000 + math.floor(time[2] / 1000)
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local late = first and math.max(now - tonumber(first), 0) or 0
return { redis.call('ZCARD', KEYS[1]), string.format('%.0f', math.floor(late)), redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, ARGV[2]) }
