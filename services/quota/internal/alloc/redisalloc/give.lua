-- give lowers a cell that is still as its grant left it. KEYS is the cell; ARGV are mark, tat and by how much.
local got = redis.call('HMGET', KEYS[1], 't', 'm')
if not got[1] or tonumber(got[1]) ~= tonumber(ARGV[2]) or got[2] ~= ARGV[1] then return {0} end
redis.call('HSET', KEYS[1], 't', string.format('%.0f', tonumber(ARGV[2]) - tonumber(ARGV[3])))
return {1}
