-- finish: the run ends, once. Every key gets its time to live here.
-- ARGV 2 slot  3 epoch  4 status  5 error or empty  6 document  7 retention ms  8.. usage and events
-- -> {finished, status} | {lost}
local slot, epoch, status, retention = ARGV[2], ARGV[3], ARGV[4], ARGV[7]
local current, by = run_get('status', 'finished_by')
if not current then return { 'lost' } end
if final(current) then
  if by == slot .. ':' .. epoch then return { 'finished', current } end -- the reply to this very call was lost
  return { 'lost' }
end
local attempt = fenced(slot, epoch)
if not attempt then return { 'lost' } end
redis.call('HSET', RUN, 'status', status, 'error', ARGV[5], 'finished_at', now, 'finished_by', slot .. ':' .. epoch)
slot_set(slot, 'state', status == 'failed' and 'failed' or 'succeeded', 'since', now, 'journal', 0)
account(8, slot, attempt, epoch)
redis.call('SET', RESULT, ARGV[6])
redis.call('DEL', READY, FLIGHT, OPEN, JOURNAL, NEWS)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, retention) end
return { 'finished', status }
