-- slots takes, renews or releases a hold. KEYS are, for each of its cells, a sorted set of holds by the tick at which they
-- end, and a hash of what each has: its slots, a space, its holder; and 'n', their sum. ARGV is what to do, the time ('' for
-- the server's), hold, holder, ttl, and for each cell: slots, how many there are, whether it is optional.
local now
if ARGV[2] == '' then
  local t = redis.call('TIME')
  now = (tonumber(t[1]) - 1735689600) * 16000000 + tonumber(t[2]) * 16
else
  now = tonumber(ARGV[2])
end
local what, hold, holder, ttl = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])

local function text(n) return string.format('%.0f', n) end

local function drop(ends, has, id)
  local v = redis.call('HGET', has, id)
  redis.call('ZREM', ends, id)
  if v then
    redis.call('HDEL', has, id)
    redis.call('HINCRBY', has, 'n', '-' .. string.match(v, '^%d+'))
  end
end

local cells, n, taken = {}, #KEYS / 2, 0
for i = 1, n do
  local c = {ends = KEYS[2 * i - 1], has = KEYS[2 * i], own = 0, mine = false}
  local b = 5 + (i - 1) * 3
  c.slots, c.most, c.optional = tonumber(ARGV[b + 1]), tonumber(ARGV[b + 2]), ARGV[b + 3] == '1'
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', c.ends, '-inf', text(now))) do drop(c.ends, c.has, id) end
  local v = redis.call('HGET', c.has, hold)
  if v then
    c.own = tonumber(string.match(v, '^%d+'))
    c.mine = string.match(v, '^%d+ (.*)$') == holder
    if not c.mine then taken = 1 end
  end
  c.held = tonumber(redis.call('HGET', c.has, 'n') or '0')
  cells[i] = c
end

-- keep has the keys go a minute after the last hold ended.
local function keep(c)
  local last = redis.call('ZRANGE', c.ends, -1, -1, 'WITHSCORES')[2]
  if last then
    local ms = text(math.max(math.floor((tonumber(last) - now) / 16000), 0) + 60000)
    redis.call('PEXPIRE', c.ends, ms)
    redis.call('PEXPIRE', c.has, ms)
  end
end

if what == 'renew' then
  local any = 0
  for _, c in ipairs(cells) do
    if not c.mine and not c.optional then return {0} end
  end
  for _, c in ipairs(cells) do
    if c.mine then
      redis.call('ZADD', c.ends, text(now + ttl), hold)
      keep(c)
      any = 1
    end
  end
  return {any}
end

if what == 'release' then
  local any = 0
  for _, c in ipairs(cells) do
    if c.mine then
      drop(c.ends, c.has, hold)
      any = 1
    end
  end
  return {any}
end

local granted = 1 - taken
for _, c in ipairs(cells) do
  c.fits = (c.mine and c.own >= c.slots) or c.held - c.own + c.slots <= c.most
  if not c.fits and not c.optional then granted = 0 end
end
local out = {granted, taken}
for _, c in ipairs(cells) do
  local first = redis.call('ZRANGE', c.ends, 0, 0, 'WITHSCORES')[2]
  local free = 0
  if first then free = tonumber(first) - now end
  if granted == 1 and c.fits then
    redis.call('ZADD', c.ends, text(now + ttl), hold)
    redis.call('HSET', c.has, hold, text(c.slots) .. ' ' .. holder)
    redis.call('HINCRBY', c.has, 'n', text(c.slots - c.own))
    c.held = c.held - c.own + c.slots
    keep(c)
  end
  out[#out + 1] = c.fits and 1 or 0
  out[#out + 1] = c.held
  out[#out + 1] = free
end
return out
