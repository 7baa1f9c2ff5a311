-- take_ready: mark ready steps dispatched, up to the run's window. The same token gets its own unclaimed steps again, so
-- that a planner that died between this and its last publication loses none.
-- ARGV 2 token
-- -> {revision, number, attempt, spec, ...}
local token = ARGV[2]
local status, revision, window = unpack(redis.call('HMGET', RUN, 'status', 'revision', 'window'))
local taken = { tonumber(revision or 0) }
if status ~= 'running' then return taken end

local function take(number, attempt)
  taken[#taken + 1] = number
  taken[#taken + 1] = tonumber(attempt)
  taken[#taken + 1] = redis.call('HGET', SPECS, number)
end

local flight = redis.call('ZRANGE', FLIGHT, 0, -1)
for _, slot in ipairs(flight) do
  local state, last, attempt = slot_get(slot, 'state', 'token', 'attempt')
  if state == 'dispatched' and last == token then take(slot, attempt) end
end
local free = tonumber(window) - #flight
if free > 0 then
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', READY, '-inf', now, 'LIMIT', 0, free)) do
    local attempt, sent = slot_get(number, 'attempt', 'sent')
    slot_set(number, 'state', 'dispatched', 'token', token, 'sent', tonumber(sent or 0) + 1)
    redis.call('ZREM', READY, number)
    redis.call('ZADD', FLIGHT, now + patience(tonumber(sent or 0)), number)
    event('step_dispatched', number, attempt, nil, '{}')
    take(number, attempt)
  end
end
redis.call('HSET', RUN, 'backlog', redis.call('ZCOUNT', READY, '-inf', now) > 0 and 1 or 0)
return taken
