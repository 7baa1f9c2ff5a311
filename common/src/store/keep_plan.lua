-- keep_plan: the planner has looked at the plan and leaves it as it is.
-- ARGV 2 epoch  3 counts as a re-plan: 1 or 0  4.. usage and events, then a count and the steps decided on
-- -> {kept, owed} | {lost}
local epoch = ARGV[2]
local attempt = fenced('plan', epoch)
if not attempt then
  local state, last = slot_get('plan', 'state', 'epoch')
  -- else the reply to this very call was lost
  if last == epoch and (state == 'succeeded' or state == 'dispatched') then return { 'kept', still_owed() } end
  return { 'lost', 'nothing' }
end
local at = account(4, 'plan', attempt, epoch)
if ARGV[3] == '1' then redis.call('HINCRBY', RUN, 'replans', 1) end
local told, again = decided(at)
return { 'kept', owed(told or redis.call('ZCOUNT', READY, '-inf', now) > 0, again) }
