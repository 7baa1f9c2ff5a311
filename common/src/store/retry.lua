-- retry: the holder gives its slot back until a later time. `retry` starts a new attempt, `park` (a rate limit) does not; `anew` starts
-- one that has nothing but one entry in its journal.
-- ARGV 2 slot  3 epoch  4 retry | park | anew  5 after ms  6 entry  7.. usage and events
-- -> {kept, owed} | {lost}
local slot, epoch, how, after = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if final(redis.call('HGET', RUN, 'status')) then return { 'lost' } end
local attempt = fenced(slot, epoch)
local status, halted = run_get('status', 'halt')
if not attempt then
  local state, last, claims = slot_get(slot, 'state', 'epoch', 'claims')
  -- The reply to this very call was lost. What is given back to a run that is ending is cancelled; what was taken from its holder has
  -- a claim that counts.
  if last == epoch and (state == 'ready' or (state == 'cancelled' and claims == '0')) then return { 'kept', still_owed() } end
  return { 'lost' }
end
account(7, slot, attempt, epoch)
if slot == 'plan' and set(halted) and status ~= 'planning' then
  -- The run is ending: nobody needs another plan.
  close_plan('cancelled')
  slot_set('plan', 'claims', 0)
  redis.call('DEL', NEWS)
  return { 'kept', owed(false, false) }
end
slot_set(slot, 'state', 'ready', 'since', now, 'claims', 0, 'sent', 0, 'again', how == 'park' and 'park' or 'retry')
redis.call('HINCRBY', STEPS, slot .. (how == 'park' and ':parks' or ':attempt'), 1)
if how == 'anew' then
  forget_journal(slot, slot_get(slot, 'journal'))
  redis.call('HSET', JOURNAL, slot .. ':0', ARGV[6])
  slot_set(slot, 'journal', 1)
end
if slot == 'plan' or slot == 'summary' then
  redis.call('ZADD', FLIGHT, now + after, slot)
  return { 'kept', 'nothing' }
end
make_ready(slot, now + after)
return { 'kept', owed(false, false) }
