-- open_run: create the run, or answer with the existing one.
-- ARGV 2 event data  3 deadline ms or empty  4.. fields of the run and their values
-- -> {created | exists, status}
local status = redis.call('HGET', RUN, 'status')
if status then return { 'exists', status } end
redis.call('HSET', RUN, 'schema', KEYS_VERSION, 'status', 'planning', 'revision', 0, 'created_at', now, unpack(ARGV, 4))
if ARGV[3] ~= '' then redis.call('HSET', RUN, 'deadline', ARGV[3], 'deadline_at', now + tonumber(ARGV[3])) end
event('run_opened', nil, nil, nil, ARGV[2])
open_plan(nil)
return { 'created', 'planning' }
