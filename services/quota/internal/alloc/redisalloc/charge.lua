-- charge decides one charge and applies it if it fits: Charge.Decide of package alloc. KEYS are its cells, of one scope. ARGV
-- is the time ('' for the server's) and 16 values for each cell: mark, revision, burst, life, exact cost, whether it is
-- optional, the costs of seven leases, the dearest first, -1 for none; and the state that a conversion is for, tat (-1: none)
-- and mark, and the tat that it has. Ticks stay below 2^53, so a double holds them; tostring would keep 14 digits of them.
local width = 16
local now
if ARGV[1] == '' then
  local t = redis.call('TIME')
  now = (tonumber(t[1]) - 1735689600) * 16000000 + tonumber(t[2]) * 16
else
  now = tonumber(ARGV[1])
end

local function number(i) return tonumber(ARGV[i]) end

local fits, stale = true, false
local cells = {}
for i, key in ipairs(KEYS) do
  local b = 1 + (i - 1) * width
  local got = redis.call('HMGET', key, 't', 'm', 'r')
  local cell = {tat = tonumber(got[1] or '0'), mark = got[2] or '', revision = tonumber(got[3] or '0'), rung = -1}
  if cell.tat > now and cell.mark ~= ARGV[b + 1] then
    if cell.tat == number(b + 14) and cell.mark == ARGV[b + 15] then
      cell.tat = number(b + 16)
    else
      cell.rung, stale = -2, true
    end
  end
  if cell.rung == -1 then
    local burst, ahead = number(b + 3), math.max(cell.tat - now, number(b + 4))
    for k = 0, 6 do
      local cost = number(b + 7 + k)
      if cost < 0 then break end
      if ahead + cost <= burst then
        cell.rung = k
        break
      end
    end
    if cell.rung == -1 and math.max(cell.tat - now, 0) + number(b + 5) <= burst then
      cell.rung = 7
    end
    if cell.rung == -1 and ARGV[b + 6] ~= '1' then fits = false end
  end
  cells[i] = cell
end

local applied = 0
if fits and not stale then
  applied = 1
  for i, key in ipairs(KEYS) do
    local cell, b = cells[i], 1 + (i - 1) * width
    if cell.rung >= 0 then
      if cell.rung == 7 then
        cell.tat = math.max(cell.tat, now) + number(b + 5)
      else
        cell.tat = math.max(cell.tat, now + number(b + 4)) + number(b + 7 + cell.rung)
      end
      local revision = math.max(cell.revision, number(b + 2))
      redis.call('HSET', key, 't', string.format('%.0f', cell.tat), 'm', ARGV[b + 1], 'r', string.format('%.0f', revision))
      -- A minute longer than it means anything.
      redis.call('PEXPIRE', key, string.format('%.0f', math.floor((cell.tat - now) / 16000) + 60000))
    end
  end
end

local out = {now, applied}
for _, cell in ipairs(cells) do
  out[#out + 1] = cell.rung
  out[#out + 1] = cell.tat
  out[#out + 1] = cell.mark
  out[#out + 1] = cell.revision
end
return out
