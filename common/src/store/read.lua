-- read: the whole run at one moment, for people, for the planner and for the summarizer.
-- -> {} | {now, run, revision JSON, steps, results, flight, ready, news, specs (when there was more than one revision)}
local run = redis.call('HGETALL', RUN)
if #run == 0 then return {} end
local revision = redis.call('HGET', RUN, 'revision')
local specs = tonumber(revision) > 1 and redis.call('HVALS', SPECS) or {}
return {
  now, run, redis.call('HGET', PLAN, revision) or '', redis.call('HGETALL', STEPS), redis.call('HGETALL', RESULTS),
  redis.call('ZRANGE', FLIGHT, 0, -1, 'WITHSCORES'), redis.call('ZRANGE', READY, 0, -1, 'WITHSCORES'), numbers(redis.call('SMEMBERS', NEWS)), specs,
}
