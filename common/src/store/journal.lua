-- journal: record one turn before going on, with what it used and what happened. Turn `index` is recorded once.
-- ARGV 2 slot  3 epoch  4 index  5 entry  6.. usage and events
-- -> kept | lost | ended
local slot, index = ARGV[2], tonumber(ARGV[4])
if final(redis.call('HGET', RUN, 'status')) then return 'ended' end
local attempt = fenced(slot, ARGV[3])
if not attempt then return 'lost' end
if index < tonumber(slot_get(slot, 'journal') or 0) then return 'kept' end
redis.call('HSET', JOURNAL, slot .. ':' .. index, ARGV[5])
slot_set(slot, 'journal', index + 1)
account(6, slot, attempt, ARGV[3])
return 'kept'
