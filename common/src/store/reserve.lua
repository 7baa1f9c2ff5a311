-- reserve: set aside a part of the run's budget for what the slot's holder has used since its last account and for its next call; that
-- account settles it. Refused, the run ends with what there is: nothing more is started, and calls of other steps are refused as well.
-- ARGV 2 slot  3 epoch  4 number of the reservation within the claim  5..8 model calls, tool calls, tokens, cost
-- -> {granted} | {busy, which limit} | {exhausted, which limit} | {lost}
--
-- Busy: what others have reserved stands in the way; what they do not use comes back when they settle.
local slot = ARGV[2]
local status, halted, why = run_get('status', 'halt', 'halt_reason')
if not status or final(status) or not fenced(slot, ARGV[3]) then return { 'lost' } end
if set(halted) and slot ~= 'summary' then return { 'exhausted', why } end
local held, last = slot_get(slot, 'held', 'held_n')
if last == ARGV[4] then return { 'granted' } end -- the reply to this very call was lost
local mine, busy = {}, nil
each(set(held) and held or '0,0,0,0', function(amount) mine[#mine + 1] = tonumber(amount) end)
local input, output = run_get('input_tokens', 'output_tokens')
for i, what in ipairs(COUNTED) do
  local most, kept, reserved, used = run_get('max_' .. what, 'reserve_' .. what, 'held_' .. what, what)
  if what == 'tokens' then used = tonumber(input or 0) + tonumber(output or 0) end
  local need = tonumber(ARGV[4 + i])
  if set(most) and need > 0 then
    local free = tonumber(most) - tonumber(used or 0)
    if slot ~= 'summary' then free = free - tonumber(kept or 0) end
    local name = what == 'cost_nanos' and 'max_cost' or 'max_' .. what
    if need > free then
      if slot ~= 'summary' then halt('budget', name .. ' is used up', false) end
      return { 'exhausted', name .. ' is used up' }
    end
    if need > free - (tonumber(reserved or 0) - mine[i]) then busy = busy or name end
  end
end
if busy then return { 'busy', busy } end
for i, what in ipairs(COUNTED) do
  local more = tonumber(ARGV[4 + i]) - mine[i]
  if more ~= 0 then redis.call('HINCRBY', RUN, 'held_' .. what, string.format('%.0f', more)) end
end
slot_set(slot, 'held', table.concat({ ARGV[5], ARGV[6], ARGV[7], ARGV[8] }, ','), 'held_n', ARGV[4])
return { 'granted' }
