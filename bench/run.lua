-- run.lua: runs the contenders, compares them, prints the report. Started by run.sh.
local LUA, PYTHON, CC = os.getenv "LUA", os.getenv "PYTHON", os.getenv "CC"
local ROUNDS = 9 -- of each timed workload, A B C D, A B C D, ...

-- The programs ------------------------------------------------------------

local function output(command)
  local f = assert(io.popen(command))
  local s = f:read "a"
  local ok = f:close()
  return ok and s or nil, s
end

local function have(command) return output(command .. " >/dev/null 2>&1") ~= nil end

-- Each Lua library has its own paths: both are called `socket`.
local debian = (output "ls -d /usr/lib/*/lua/5.4 2>/dev/null" or ""):match "[^\n]+" or "/usr/lib/lua/5.4"
local ours_env = "LUA_PATH='./?.lua' LUA_CPATH='./?.so;bench/build/?.so'"
local luasocket_env = ("LUA_PATH=/usr/share/lua/5.4/?.lua LUA_CPATH='%s/?.so;bench/build/?.so'"):format(debian)

local contenders = {
  C = {env = "", command = "bench/build/c_client", empty = "bench/build/c_client nothing"},
  socket = {env = ours_env, command = LUA .. " bench/ours.lua", empty = LUA .. " -e 'require[[socket]]'"},
  LuaSocket = {
    env = luasocket_env,
    command = LUA .. " bench/luasocket.lua",
    empty = LUA .. " -e 'require[[socket]]'",
    missing = not have(luasocket_env .. " " .. LUA .. " -e 'require[[socket]]'"),
  },
  Python = {
    env = "",
    command = PYTHON .. " bench/py_client.py",
    empty = PYTHON .. " bench/py_client.py nothing", -- not -c: that would find ./socket.so
    missing = PYTHON == "",
  },
}
local order = {"C", "socket", "LuaSocket", "Python"}
for _, kind in ipairs {"plain", "blind", "upvalue", "name", "function", "lines_read", "lines_for"} do
  contenders["bare " .. kind] = {env = ours_env, command = LUA .. " bench/bare.lua " .. kind, bare = true}
end

local report = {}
local function say(...)
  local line = string.format(...)
  report[#report + 1] = line
  print(line)
  io.stdout:flush()
end

local function run(contender, tool, workload, n)
  local c = contenders[contender]
  local command = ("%s %s %s %s %d"):format(c.env, tool, c.command, c.bare and "" or workload, n)
  if workload == "startup" then command = ("%s bench/build/c_client spawn %d %s"):format(c.env, n, c.empty) end
  local ok, said = output(command)
  return ok or error(("failed: %s\n%s"):format(command, said))
end

local function median(t)
  table.sort(t)
  return t[(#t + 1) // 2]
end

-- A table in Markdown that also reads well on a terminal: the first column to the left, numbers to the right.
local function row(first, ...)
  local cells = {("| %-30s"):format(first)}
  for _, cell in ipairs {...} do cells[#cells + 1] = ("%11s"):format(cell) end
  say("%s |", table.concat(cells, " | "))
end

local function head(first, ...)
  row(first, ...)
  say("|%s|%s", ("-"):rep(31), (("-"):rep(12) .. ":|"):rep(select("#", ...)))
end

local targets = {}
local function target(text, met, measured)
  targets[#targets + 1] = {text, met, measured}
end

-- Time --------------------------------------------------------------------

-- Name, text, operations a round; who lacks it; its target, as a ratio to C's CPU time (most), or to that of bare.c.
local timed = {
  {"roundtrip", "64-byte round trip", 10000},
  {"roundtrip_t", "64-byte round trip, timeout", 10000},
  {"recv_ready", "recv of 64 bytes, at hand", 20000},
  {"recv_ready_t", "recv of 64 bytes, at hand, timeout", 20000},
  {"send64k", "send 64 KiB", 4000},
  {"recv64k", "receive 64 KiB", 4000},
  {"recv_into64k", "receive 64 KiB into a buffer", 8000, lacks = "LuaSocket", most = 1.05},
  {"fd_message", "64 bytes with a descriptor", 10000, lacks = "LuaSocket"},
  {"lines_read", "read a line: f:read()", 200000, floor = 1.6},
  {"lines_for", "read a line: for ... in f:lines()", 200000, floor = 1.6},
  {"sendfile", "sendfile of 1 MiB", 300, lacks = "LuaSocket"},
  {"connect", "connect + close", 1000},
  {"accept", "accept + close", 2000},
  {"udp", "UDP round trip, connected", 10000},
  {"udp_to", "UDP, sendto and recvfrom", 10000},
  {"wouldblock_try", "would block, try_recv", 20000},
  {"wouldblock_pcall", "would block, raised and caught", 20000},
  {"startup", "start-up: require, exit", 20},
}

local function time()
  say "## Time\n"
  say "CPU time (user and system) of the client, then wall time, per operation: for C in microseconds, for the"
  say("others as ratios to C. Medians of %d rounds, every contender once a round. The peer shares the", ROUNDS)
  say "processor: its part is in the wall time only. LuaSocket reads a stream ahead, 8 KiB at a time, so most"
  say "of its small receives make no system call; a plain recv always makes one, and so the two rows `at hand`"
  say "carry no verdict. Raised and caught: pcall(recv) here, socket.protect and socket.try in LuaSocket."
  say "Between two runs of one contender lie up to 3 in 100; for 64 KiB receives and accept up to 10.\n"
  head("", "C, us", "socket", "LuaSocket", "Python", "to LuaSocket")
  for _, w in ipairs(timed) do
    local name, text, n = table.unpack(w)
    local cpu, wall, floor = {}, {}, {}
    for round = 1, ROUNDS do
      if w.floor then floor[round] = run("bare " .. name, "", name, n):match "%S+" / n * 1e6 end
      for _, c in ipairs(order) do
        if not contenders[c].missing and c ~= w.lacks then
          local a, b = run(c, "", name, n):match "(%S+) (%S+)"
          cpu[c], wall[c] = cpu[c] or {}, wall[c] or {}
          cpu[c][round], wall[c][round] = a / n * 1e6, b / n * 1e6
        end
      end
    end
    for c in pairs(cpu) do cpu[c], wall[c] = median(cpu[c]), median(wall[c]) end
    local function ratio(a, b)
      return cpu[a] and cpu[b] and ("%5.2f %5.2f"):format(cpu[a] / cpu[b], wall[a] / wall[b]) or "-"
    end
    row(text, ("%.2f %.2f"):format(cpu.C, wall.C), ratio("socket", "C"), ratio("LuaSocket", "C"), ratio("Python", "C"),
      ratio("socket", "LuaSocket"))
    if w.most then
      local r = cpu.socket / cpu.C
      target(("%s: CPU time at most %.2f of C's"):format(text, w.most), r <= w.most, ("%.3f"):format(r))
    end
    if w.floor then
      local least = median(floor)
      target(("%s: CPU time at most %.2f of the least in Lua (bare.c)"):format(text, w.floor),
        cpu.socket / least <= w.floor, ("%.3f of %.3f us"):format(cpu.socket / least, least))
    end
    if cpu.LuaSocket then
      local r = cpu.socket / cpu.LuaSocket
      if not text:find "at hand" then
        target(text .. ": less CPU time than LuaSocket", r < 1, ("%.3f"):format(r))
      end
    end
  end
  say ""
end

-- System calls ------------------------------------------------------------

local function strace(contender, workload, n)
  run(contender, "strace -c -f -o bench/build/strace", workload, n)
  local calls, sum = {}, 0
  for line in io.lines "bench/build/strace" do
    local count, name = line:match "^%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)%s+%d*%s*(%S+)$"
    if count and name ~= "total" then
      calls[name] = tonumber(count)
      sum = sum + count
    end
  end
  return sum, calls
end

local function syscalls()
  say "## System calls\n"
  say "Per operation, from `strace -c` of 300 and of 100 operations, so that start-up cancels out.\n"
  head("", table.unpack(order))
  local details = {}
  for _, w in ipairs {
    {"roundtrip", "round trip", 2}, {"late", "round trip that waits 1 ms", 2},
    {"roundtrip_t", "round trip, timeout", 3}, {"late_t", "round trip that waits, timeout", 3},
    {"recv_ready", "recv that finds data", 1}, {"recv_ready_t", "recv that finds data, timeout", 1},
    {"accept", "accept + close"}, {"wouldblock_try", "would block, try_recv"},
  } do
    local name, text, most = table.unpack(w)
    local cells = {}
    for i, c in ipairs(order) do
      cells[i] = "-"
      if not contenders[c].missing then
        local sum1, calls1 = strace(c, name, 100)
        local sum3, calls3 = strace(c, name, 300)
        local each = (sum3 - sum1) / 200
        cells[i] = ("%.2f"):format(each)
        if c == "socket" then
          if most then target(("%s: system calls, at most %d"):format(text, most), each <= most + 0.05, cells[i]) end
          local names = {}
          for k, v in pairs(calls3) do
            v = (v - (calls1[k] or 0)) / 200
            if v >= 0.05 then names[#names + 1] = ("%s %.4g"):format(k, v) end
          end
          table.sort(names)
          details[#details + 1] = ("- %s: %s"):format(text, table.concat(names, ", "))
        end
      end
    end
    row(text, table.unpack(cells))
  end
  say "\nWhich ones, for `socket`:\n"
  for _, line in ipairs(details) do say("%s", line) end
  say ""
end

-- Instructions ------------------------------------------------------------

-- Lua seeds its string hash from the time and from addresses; the spread is 20 or so, hence the median.
local function callgrind(contender, workload)
  local tool = "valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file=bench/build/callgrind"
  local function total(n)
    run(contender, tool, workload, n)
    local f = assert(io.open "bench/build/callgrind")
    local count = f:read("a"):match "Collected : (%d+)"
    f:close()
    return count
  end
  local each = {}
  for i = 1, 3 do each[i] = (total(5500) - total(500)) / 5000 end
  return median(each)
end

local function instructions()
  say "## Instructions\n"
  say "In user space per operation, the interpreter's own included: `valgrind --tool=callgrind` of 5,500 and of 500"
  say "operations, median of three. `bare` (bench/bare.c) is a Lua C function with nothing in it but the argument"
  say "checks and the system call: plain functions, then methods whose self is taken on trust, compared with an"
  say "upvalue, looked up by name, and compared with an upvalue under a C function as `__index`.\n"
  local names = {"C", "bare plain", "bare blind", "bare upvalue", "bare name", "bare function", "socket", "LuaSocket",
    "Python"}
  local columns = {
    {"roundtrip", "round trip"}, {"roundtrip_t", "with timeout"},
    {"wouldblock_try", "try_recv"}, {"wouldblock_pcall", "pcall(recv)"},
  }
  head("", "round trip", "with timeout", "try_recv", "pcall(recv)")
  for _, c in ipairs(names) do
    if not contenders[c].missing then
      local cells = {}
      for i, column in ipairs(columns) do
        if i > 1 and contenders[c].bare or i == 4 and c ~= "socket" then
          cells[i] = i == 4 and not contenders[c].bare and cells[3] or "-"
        else
          local each = callgrind(c, column[1])
          cells[i] = ("%.0f"):format(each)
          if c == "socket" and i == 1 then
            target("64-byte round trip: at most 2200 instructions", each <= 2200, cells[i])
          end
        end
      end
      row(c, table.unpack(cells))
    end
  end
  say ""
end

-- Memory ------------------------------------------------------------------

local function memory()
  local n = math.min(10000, tonumber(output("ulimit -n"):match "%d+" or 20000) - 100)
  say "## Memory\n"
  say("Bytes per open socket, %d of them: resident memory of the process, and of that Lua's heap.\n", n)
  head("", table.unpack(order))
  for _, kind in ipairs {"tcp", "udp"} do
    local rss, heap = {}, {}
    for i, c in ipairs(order) do
      rss[i], heap[i] = "-", "-"
      if not contenders[c].missing then
        local a, b = run(c, "", "memory_" .. kind, n):match "(%d+)%s+(%d+)"
        rss[i], heap[i] = a, b ~= "0" and b or "-"
      end
    end
    row(kind:upper() .. ", resident", table.unpack(rss))
    row(kind:upper() .. ", Lua heap", table.unpack(heap))
    if rss[3] ~= "-" then
      target(("memory per %s socket: less than LuaSocket"):format(kind:upper()), tonumber(rss[2]) < tonumber(rss[3]),
        ("%s, %s"):format(rss[2], rss[3]))
    end
  end
  say ""
end

-- TLS ---------------------------------------------------------------------

contenders["C TLS"] = {env = "", command = "bench/build/tls"}
contenders["socket TLS"] = {env = ours_env, command = LUA .. " bench/tls.lua"}

-- Name, text, operations a round; is its wall time to be at most 1.03 of C's?
local tls_timed = {
  {"handshake13", "client, TLS 1.3: connect + handshake", 300, true},
  {"handshake12", "client, TLS 1.2", 300, true},
  {"accept13", "server, TLS 1.3: accept + handshake", 200, true},
  {"accept12", "server, TLS 1.2", 200, true},
  {"resume13", "client, TLS 1.3, session resumed", 600},
  {"resume12", "client, TLS 1.2, session resumed", 1000},
  {"recv16k", "receive 16 KiB", 10000, true},
  {"recv256k", "receive 256 KiB", 800, true},
  {"recv_into256k", "receive 256 KiB into a buffer", 800, true},
  {"send16k", "sendall of 16 KiB", 10000, true},
  {"send256k", "sendall of 256 KiB", 800, true},
}

local function tls()
  say "## TLS\n"
  say "CPU time of the client (for `server`, of the server), then wall time, per operation: for C on OpenSSL"
  say("(bench/tls.c) in microseconds, for this library as ratios. Medians of %d rounds; the peer, the same for", ROUNDS)
  say "both, shares the processor. Keys are RSA of 2048 bits; clients verify chain and name. `recv` makes a string of"
  say "what it received, a copy more than C has; `recv_into` does not. Peer and client together make the wall time,"
  say "and it is what the rate of handshakes depends on.\n"
  head("", "C, us", "socket")
  local walls = {}
  for _, w in ipairs(tls_timed) do
    local name, text, n, judged = table.unpack(w)
    local cpu, wall = {C = {}, socket = {}}, {C = {}, socket = {}}
    for round = 1, ROUNDS do
      for c in pairs(cpu) do
        local a, b = run(c .. " TLS", "", name, n):match "(%S+) (%S+)"
        cpu[c][round], wall[c][round] = a / n * 1e6, b / n * 1e6
      end
    end
    for c in pairs(cpu) do cpu[c], wall[c] = median(cpu[c]), median(wall[c]) end
    walls[name], walls["C " .. name] = wall.socket, wall.C
    local ratio = wall.socket / wall.C
    row(text, ("%.2f %.2f"):format(cpu.C, wall.C), ("%5.2f %5.2f"):format(cpu.socket / cpu.C, ratio))
    if judged then target(("TLS, %s: at most 1.03 of C's time"):format(text), ratio <= 1.03, ("%.3f"):format(ratio)) end
  end
  for _, v in ipairs {"13", "12"} do
    local r = walls["handshake" .. v] / walls["resume" .. v]
    target(("TLS 1.%s: resuming at least 3 times as fast as a full handshake"):format(v:sub(2)), r >= 3,
      ("%.2f; C %.2f"):format(r, walls["C handshake" .. v] / walls["C resume" .. v]))
  end
  local c, released = run("C TLS", "", "memory", 500):match "%d+", run("C TLS", "", "memory_released", 500):match "%d+"
  local all, own = run("socket TLS", "", "memory", 500):match "(%d+)%s+(%d+)"
  say("\nBytes of malloc for an idle TLS 1.3 connection: C %s, with SSL_MODE_RELEASE_BUFFERS %s; socket %s, of", c,
    released, all)
  say("which %s are of Lua's heap, beyond a plain socket's.\n", own)
  target("a TLS connection's own memory: less than 1024 bytes", tonumber(own) < 1024 and all - released < 1024,
    ("%s, %d more than C"):format(own, all - released))
end

-- Load --------------------------------------------------------------------

local function load()
  dofile "bench/load.lua" {
    say = say, head = head, row = row, target = target, median = median, output = output,
    LUA = LUA, ours_env = ours_env, luasocket_env = luasocket_env,
  }
end

-- Starting ----------------------------------------------------------------

local function startup()
  say "## Starting\n"
  say "What `require` adds to a Lua that has just started (bench/startup.lua): time, resident memory (RSS) and the"
  say "process's share of it (PSS), Lua's heap; median of 101 processes. Size: the shared library, stripped; Lua files"
  say "of LuaSocket not counted.\n"
  head("", "ms", "RSS, KiB", "PSS, KiB", "heap, KiB", "size, bytes")
  local files = {socket = "socket.so", LuaSocket = "/usr/lib/x86_64-linux-gnu/lua/5.4/socket/core.so"}
  local luasocket = contenders.LuaSocket
  for _, c in ipairs {{"socket", ours_env}, not luasocket.missing and {"LuaSocket", luasocket.env}} do
    local columns = {{}, {}, {}, {}}
    for _ = 1, 101 do
      local n = 0
      for number in (output(("%s %s bench/startup.lua socket"):format(c[2], LUA)) or ""):gmatch "%S+" do
        n = n + 1
        table.insert(columns[n], tonumber(number))
      end
    end
    for i, list in ipairs(columns) do columns[i] = median(list) end
    local size = output(("strip -o bench/build/stripped %s && wc -c <bench/build/stripped"):format(files[c[1]]))
    local ms, rss, pss, heap = table.unpack(columns)
    row(c[1], ("%.3f"):format(ms), ("%.0f"):format(rss), ("%.0f"):format(pss), ("%.0f"):format(heap),
      ("%s"):format(size and size:match "%d+" or "?"))
    if c[1] == "socket" then
      size = tonumber(size)
      target("require: under 0.3 ms", ms < 0.3, ("%.3f ms"):format(ms))
      target("require: under 150 KB of resident memory", rss * 1024 < 150 * 1024, ("%.0f KiB"):format(rss))
      target("the core, stripped: under 150,000 bytes", size and size < 150000, ("%s bytes"):format(size))
    end
  end
  say ""
end

-- The report --------------------------------------------------------------

local parts = {
  {"time", time},
  {"syscalls", syscalls, "strace"},
  {"instructions", instructions, "valgrind"},
  {"memory", memory},
  {"startup", startup},
  {"tls", tls},
  {"load", load},
}
local wanted, write, named = {}, false, false
for _, a in ipairs(arg) do
  if a == "--write" then
    write = true
  else
    local known = a == "all"
    for _, part in ipairs(parts) do
      if a == "all" or a == part[1] then wanted[part[1]], known, named = true, true, true end
    end
    if not known then
      io.stderr:write("usage: sh bench/run.sh [time] [syscalls] [instructions] [memory] [startup] [tls] [load]",
        " [all] [--write]\n")
      os.exit(2)
    end
  end
end

local function line(command) return (output(command .. " 2>&1") or "?"):gsub("\n.*", "") end
say "# Benchmarks\n"
say("%s, %s processors, Linux %s",
  line "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo", line "getconf _NPROCESSORS_ONLN", line "uname -r")
say("%s; %s; %s; %s\n", line(LUA .. " -v"):gsub("%s+Copyright.*", ""), line(CC .. " --version"),
  contenders.LuaSocket.missing and "no LuaSocket (lua-socket)"
    or line(luasocket_env .. " " .. LUA .. " -e 'print((require[[socket]]._VERSION))'"),
  contenders.Python.missing and "no Python" or line(PYTHON .. " -V"))

for _, part in ipairs(parts) do
  local name, f, tool = table.unpack(part)
  if not named or wanted[name] then
    if name == "tls" and os.getenv "BENCH_TLS_PORTS" == "" then
      say "## tls: skipped, no socket/ssl.so here\n"
    elseif tool and not have(tool .. " --version") then
      say("## %s: skipped, no %s here\n", name, tool)
    else
      f()
    end
  end
end

say "## Targets\n"
for _, t in ipairs(targets) do say("- %s: %s (%s)", t[2] and "met" or "NOT met", t[1], t[3]) end

if write then
  local f = assert(io.open("bench/RESULTS.md", "w"))
  f:write(table.concat(report, "\n"), "\n")
  f:close()
end
