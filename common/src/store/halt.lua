-- halt: the holder of a slot ends the run early; what runs is no longer wanted.
-- ARGV 2 slot  3 epoch  4 kind  5 reason  6.. usage and events
-- -> kept | lost | ended
local status, halted = run_get('status', 'halt')
if not status or final(status) then return 'ended' end
local attempt = fenced(ARGV[2], ARGV[3])
if not attempt then
  if halted == ARGV[4] and slot_get(ARGV[2], 'epoch') == ARGV[3] then return 'kept' end -- the reply to this very call was lost
  return 'lost'
end
account(6, ARGV[2], attempt, ARGV[3])
halt(ARGV[4], ARGV[5], true)
return 'kept'
