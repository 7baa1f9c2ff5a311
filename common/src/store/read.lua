-- read: the whole run at one moment, for people and for the summarizer.
-- -> {} | {run, revision JSON, steps, results}
local run = redis.call('HGETALL', RUN)
if #run == 0 then return {} end
local revision = redis.call('HGET', PLAN, redis.call('HGET', RUN, 'revision')) or ''
return { run, revision, redis.call('HGETALL', STEPS), redis.call('HGETALL', RESULTS) }
