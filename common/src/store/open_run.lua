-- open_run: create the run, or answer with the existing one.
-- ARGV 2 request  3 objective  4 window  5 reply_to  6 correlation_id  7 traceparent  8 event data
-- -> {created | exists, status}
local status = redis.call('HGET', RUN, 'status')
if status then return { 'exists', status } end
redis.call('HSET', RUN, 'status', 'planning', 'objective', ARGV[3], 'request', ARGV[2], 'revision', 0, 'window', ARGV[4],
  'created_at', now, 'reply_to', ARGV[5], 'correlation_id', ARGV[6], 'traceparent', ARGV[7])
slot_set('plan', 'state', 'dispatched', 'attempt', 1)
redis.call('ZADD', FLIGHT, now + patience(0), 'plan')
event('run_opened', nil, nil, nil, ARGV[8])
return { 'created', 'planning' }
