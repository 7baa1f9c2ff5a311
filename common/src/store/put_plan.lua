-- put_plan: store revision n+1 if the current one is n; the first writer wins.
-- ARGV 2 epoch  3 current revision n  4 JSON of the revision  5.. usage and events, then per step: number, spec, deps, next
-- -> {stored, revision} | {lost, revision}
local epoch, revision = ARGV[2], tonumber(ARGV[3]) + 1
local current = tonumber(redis.call('HGET', RUN, 'revision') or 0)
local attempt = fenced('plan', epoch)
if not attempt or current ~= revision - 1 then
  local state, last = slot_get('plan', 'state', 'epoch')
  local mine = current == revision and state == 'succeeded' and last == epoch -- the reply to this very call was lost
  return { mine and 'stored' or 'lost', current }
end
redis.call('HSET', RUN, 'status', 'running', 'revision', revision, 'backlog', 0)
redis.call('HSET', PLAN, revision, ARGV[4])
local at = account(5, 'plan', attempt, epoch)
for i = at, #ARGV, 4 do
  local number, deps = ARGV[i], ARGV[i + 2]
  local waiting = 0
  each(deps, function() waiting = waiting + 1 end)
  redis.call('HSET', SPECS, number, ARGV[i + 1])
  slot_set(number, 'state', waiting == 0 and 'ready' or 'waiting', 'attempt', 1, 'waiting', waiting, 'deps', deps, 'next', ARGV[i + 3])
  redis.call('SADD', OPEN, number)
  if waiting == 0 then redis.call('ZADD', READY, now, number) end
end
slot_set('plan', 'state', 'succeeded')
redis.call('ZREM', FLIGHT, 'plan')
return { 'stored', revision }
