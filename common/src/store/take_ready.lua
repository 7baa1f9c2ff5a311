-- take_ready: mark ready steps dispatched, up to the run's window. The same token gets its own unclaimed steps again, so
-- that a planner that died between this and its last publication loses none. Says as well, once a token, whether the plan is owed.
-- ARGV 2 token
-- -> {plan owed: 1 or 0, revision, number, attempt, spec, ...}
local token = ARGV[2]
local status, revision, window, policy, halted = run_get('status', 'revision', 'window', 'replan', 'halt')
local taken = { 0, tonumber(revision or 0) }
if status ~= 'running' or set(halted) then return taken end
local plan, asked = slot_get('plan', 'state', 'token')
if plan == 'dispatched' and (not set(asked) or asked == token) then
  slot_set('plan', 'token', token)
  taken[1] = 1
end

local function take(number, attempt)
  taken[#taken + 1] = number
  taken[#taken + 1] = tonumber(attempt)
  taken[#taken + 1] = redis.call('HGET', SPECS, number)
end

local earlier = redis.call('HGET', JOURNAL, 'token:' .. token)
each(earlier, function(number)
  local state, last, attempt = slot_get(number, 'state', 'token', 'attempt')
  if state == 'dispatched' and last == token then take(number, attempt) end
end)
local free = tonumber(window) - in_flight()
if policy == 'after_each_step' and plan_is_open() then free = 0 end
local numbers = {}
if free > 0 then
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', READY, '-inf', now, 'LIMIT', 0, free)) do
    local attempt, sent = slot_get(number, 'attempt', 'sent')
    slot_set(number, 'state', 'dispatched', 'since', now, 'token', token, 'sent', tonumber(sent or 0) + 1)
    redis.call('ZREM', READY, number)
    redis.call('ZADD', FLIGHT, now + patience(tonumber(sent or 0)), number)
    event('step_dispatched', number, attempt, nil, '{}')
    take(number, attempt)
    numbers[#numbers + 1] = number
  end
end
if #numbers > 0 then
  if earlier then table.insert(numbers, 1, earlier) end
  redis.call('HSET', JOURNAL, 'token:' .. token, table.concat(numbers, ','))
end
redis.call('HSET', RUN, 'backlog', redis.call('ZCOUNT', READY, '-inf', now) > 0 and 1 or 0)
return taken
