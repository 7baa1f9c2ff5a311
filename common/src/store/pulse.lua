-- pulse: how a live run does, for whoever watches many of them. Changes nothing.
-- ARGV 2 most slots in flight that are looked at, those that wait longest for their next look first
-- -> {} | {status, ms since the last entry of the audit trail, ms that the oldest published message has waited for a claim}
local status, paused = run_get('status', 'paused')
if not status then return {} end
local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
local quiet = last and now - tonumber(string.match(last[1], '^%d+')) or 0
local oldest = now
if not set(paused) and not final(status) then
  for _, slot in ipairs(redis.call('ZRANGE', FLIGHT, 0, tonumber(ARGV[2]) - 1)) do
    local state, since = slot_get(slot, 'state', 'since')
    if state == 'dispatched' and tonumber(since) < oldest then oldest = tonumber(since) end
  end
end
return { status, string.format('%.0f', math.max(quiet, 0)), string.format('%.0f', now - oldest) }
