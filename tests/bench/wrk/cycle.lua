-- Sends the request in a file over and over, each "@@@@@@@@" in it replaced by a running number of eight digits.
--   wrk ... -s cycle.lua URL -- FILE COUNT
-- COUNT: how many numbers there are before they begin again; 0: no end. Prints one line for generate.py when done.

local parts, count, number = {}, 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  count = tonumber(args[2])
  local from = 1
  while true do
    local at = text:find("@@@@@@@@", from, true)
    if not at then break end
    parts[#parts + 1] = text:sub(from, at - 1)
    parts[#parts + 1] = ""
    from = at + 8
  end
  parts[#parts + 1] = text:sub(from)
end

function request()
  if #parts == 1 then return parts[1] end
  local shown = string.format("%08d", number)
  number = number + 1
  if number == count then number = 0 end
  for i = 2, #parts, 2 do parts[i] = shown end
  return table.concat(parts)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("BENCH %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
