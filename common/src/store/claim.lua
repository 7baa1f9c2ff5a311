-- claim: take a slot under a lease and a new fencing epoch.
-- ARGV 2 slot  3 message id  4 nonce  5 attempt or empty  6 lease ms  7 worker  8 event data  9 claims max  10 redelivered: 1 or 0
--      11 salt of the epoch, below 2^FENCE_BITS
-- -> {execute | poisoned, epoch, attempt, parks, request or objective, {limits, if any}, spec, {journal}, {dependency, spec, record, ...}}
--    {done, owed, state} {duplicate, worker} {stale, why} {finished, status}
--
-- A redelivery of the holder's own message takes over at once: the broker gives a message to one consumer at a time. Any other
-- message for a slot with a live lease is a duplicate: the holder's own message is still unacknowledged. The same id alone is not
-- enough: ids of objectives are chosen by their publishers, who may publish one twice. A holder that is taken over from within its
-- lease may have died or only have lost its connection; if it lives, its `release` says so. One whose lease is over hung or is dead: that
-- counts, also if it is the claimant itself.
local slot, mid, nonce, wanted = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local status, limited = run_get('status', 'limited')
if not status then return { 'stale', 'there is no such run' } end
if final(status) then return { 'finished', status } end
local state, epoch, attempt, claims, holder, last, worker, taken =
  slot_get(slot, 'state', 'epoch', 'attempt', 'claims', 'mid', 'nonce', 'worker', 'taken')
if not state then return { 'stale', 'there is no such step' } end
if ended(state) then return { 'done', still_owed(), state } end
if state == 'waiting' then return { 'stale', 'its dependencies have not succeeded' } end
if status == 'awaiting_approval' then return { 'stale', 'its plan waits for approval' } end
attempt = attempt or '1'
if wanted ~= '' and wanted ~= attempt then return { 'stale', 'it is at attempt ' .. attempt } end
epoch, claims = tonumber(epoch or 0), tonumber(claims or 0)

if not (state == 'running' and last == nonce) then -- else the reply to this very claim was lost
  local is_step = slot ~= 'plan' and slot ~= 'summary'
  local waits_in = (state == 'ready' and is_step) and READY or FLIGHT
  local deadline = tonumber(redis.call('ZSCORE', waits_in, slot) or 0)
  local takes_over = holder == mid and ARGV[10] == '1'
  if state == 'running' and not takes_over and deadline > now then return { 'duplicate', worker } end
  if state == 'ready' and deadline > now then return { 'stale', 'it waits for a later time' } end
  if state == 'running' then unreserve(slot, true) end
  local leased = state == 'running' and deadline > now
  local from_itself = leased and worker == ARGV[7]
  if state ~= 'running' then taken = '' end
  if leased and not from_itself then taken = (taken or '') .. string.format('%.0f,', epoch) end
  if status == 'paused' then
    -- Nothing new starts. A step waits where it will be dispatched from; the plan is asked for again by whoever resumes the run.
    if is_step then
      make_ready(slot, now)
      drained()
    else
      slot_set(slot, 'state', 'dispatched', 'since', now)
    end
    return { 'stale', 'the run is paused' }
  end
  -- Higher than the last one. The salt, because a store that loses its last writes counts the same numbers again: whoever got one in what
  -- it has forgotten is not to be taken for the holder of today.
  epoch = (math.floor(epoch / 2 ^ FENCE_BITS) + 1) * 2 ^ FENCE_BITS + tonumber(ARGV[11])
  -- Who takes over from itself has not died, only its connection has: perhaps several times, while the store was away.
  if not from_itself then claims = claims + 1 end
  slot_set(slot, 'state', 'running', 'since', now, 'epoch', epoch, 'claims', claims, 'mid', mid, 'nonce', nonce, 'worker', ARGV[7],
    'sent', 0, 'held_n', '', 'taken', taken or '')
  redis.call('ZREM', READY, slot)
  redis.call('ZADD', FLIGHT, now + tonumber(ARGV[6]), slot)
  event('claimed', slot, attempt, epoch, ARGV[8])
end

local turns, inputs = {}, {}
local length, deps, parks = slot_get(slot, 'journal', 'deps', 'parks')
for i = 0, tonumber(length or 0) - 1 do turns[#turns + 1] = redis.call('HGET', JOURNAL, slot .. ':' .. i) end
each(deps, function(dependency)
  inputs[#inputs + 1] = dependency
  inputs[#inputs + 1] = redis.call('HGET', SPECS, dependency)
  inputs[#inputs + 1] = redis.call('HGET', RESULTS, dependency) or ''
end)
local text = redis.call('HGET', RUN, slot == 'plan' and 'request' or 'objective')
local spec = redis.call('HGET', SPECS, slot) or ''
local verdict = claims > tonumber(ARGV[9]) and 'poisoned' or 'execute'
local limits = {}
if limited == '1' then
  for i, what in ipairs(COUNTED) do limits[i] = run_get('max_' .. what) or '' end
end
return { verdict, epoch, tonumber(attempt), tonumber(parks or 0), text, limits, spec, turns, inputs }
