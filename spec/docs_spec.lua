-- The Lua examples of README.md and docs/: each ```lua block is run as a program of its own, and what it marks with
-- --> must be printed, in that order, among the lines it prints. White space counts once, descriptors, ports and
-- pointers may be others. A line before the block, <!-- not run: reason -->, keeps one from it. Servers in README.md,
-- which use port 50007, are asked by the client there. Recipes are the business of spec/interplay_spec.lua.

local helper = require "spec.helper"
local lfs = require "lfs"
local socket = require "socket"
local support = require "spec.support"

local function read(path)
  local f <close> = assert(io.open(helper.root .. "/" .. path))
  return (f:read "a")
end

local documents = {"README.md"}
for _, folder in ipairs {"docs", "docs/reference"} do
  for name in lfs.dir(helper.root .. "/" .. folder) do
    if name:find "%.md$" and name ~= "recipes.md" then documents[#documents + 1] = folder .. "/" .. name end
  end
end
table.sort(documents)

-- List of {line, code, reason}; the reason is that of a block that is not run.
local function blocks(text)
  local list, block, reason, number = {}, nil, nil, 0
  for line in text:gmatch "([^\n]*)\n" do
    number = number + 1
    if block and line == "```" then
      block.code = table.concat(block, "\n") .. "\n"
      block, reason = nil, nil
    elseif block then
      block[#block + 1] = line
    elseif line == "```lua" then
      block = {line = number, reason = reason}
      list[#list + 1] = block
    elseif line ~= "" then
      reason = line:match "^<!%-%- not run: (.+) %-%->$"
    end
  end
  assert(not block, "a block without an end")
  return list
end

local function normal(line)
  return (line:gsub("fd=%d+", "fd=N"):gsub(":%d%d%d%d+", ":PORT"):gsub("0x[%x.]+", "0x"):gsub("%s+", " ")
    :gsub("^ ", ""):gsub(" $", ""))
end

-- What a block says it prints.
local function promises(code)
  local list = {}
  for line in code:gmatch "[^\n]+" do list[#list + 1] = line:match "%-%->%s*(.-)%s*$" end
  return list
end

-- The first promise that the output does not keep, or nil.
local function broken(promised, output)
  local next_line = output:gmatch "[^\n]+"
  for _, promise in ipairs(promised) do
    repeat
      local line = next_line()
      if not line then return promise end
    until normal(line) == normal(promise)
  end
end

-- The shell command that runs a program as the file script.lua, and the file it really is in.
local function command(code)
  local file = os.tmpname()
  local f <close> = assert(io.open(file, "w"))
  f:write(code)
  local start = ("io.stdout:setvbuf 'line' local f <close> = io.open(%q) assert(load(f:read 'a', '@script.lua'))()")
    :format(file)
  return ("exec timeout 20 %s -e %s"):format(helper.lua(), helper.quote(start)), file
end

local function run(code)
  local line, file = command(code)
  local output, status = support.output(line)
  os.remove(file)
  return output, status
end

-- Waits until somebody listens at the port of this machine.
local function await(port)
  local stop = socket.monotonic() + 10
  repeat
    local s <close> = socket.try_create_connection({"127.0.0.1", port}, 1)
    if s then return end
    socket.sleep(0.01)
  until socket.monotonic() > stop
  error "nobody listens"
end

-- What the client prints, run beside the server, and what that does.
local function converse(server, client)
  local probe = socket.create_server {"127.0.0.1", 0}
  local port = probe:getsockname().port
  probe:close()
  local start, file = command((server:gsub("50007", port)))
  local pipe = assert(io.popen("exec 2>&1; echo $$; " .. start))
  local pid = pipe:read "l"
  local ready, problem = pcall(await, port)
  local answer, status = run((client:gsub("50007", port)))
  support.kill(pid, "TERM")
  local said = pipe:read "a"
  pipe:close()
  os.remove(file)
  assert(ready, problem)
  assert.equal(0, status, answer)
  return answer, said
end

describe("examples in the documents:", function()
  it("what is promised is compared", function()
    local code = 'print(1, 2) --> 1 2\nprint "between"\nprint(socket) --> socket: <fd=3, laddr=127.0.0.1:40000>\n'
    local promised = promises(code)
    assert.same({"1 2", "socket: <fd=3, laddr=127.0.0.1:40000>"}, promised)
    assert.is_nil(broken(promised, "1\t2\nbetween\nsocket: <fd=17, laddr=127.0.0.1:1234>\n"))
    assert.equal(promised[2], broken(promised, "1\t2\nbetween\n"))
    assert.equal(promised[1], broken(promised, "1\t3\nsocket: <fd=17, laddr=127.0.0.1:1234>\n"))
    assert.same({{line = 3, reason = "why", code = "x = 1\n", "x = 1"}},
      blocks "text\n<!-- not run: why -->\n```lua\nx = 1\n```\n")
    local output, status = run "error 'no'"
    assert.matches("script.lua:1: no", output)
    assert.equal(1, status)
  end)

  local client, servers = nil, {}
  for _, block in ipairs(blocks(read "README.md")) do
    if block.code:find('"localhost", 50007', 1, true) then client = block.code
    elseif block.code:find "50007" then servers[#servers + 1] = block end
  end

  it("README.md has a client and three servers", function()
    assert.is_string(client)
    assert.equal(3, #servers)
  end)

  for _, block in ipairs(servers) do
    it(("README.md:%d serves the client"):format(block.line), function()
      local answer, said = converse(block.code, client)
      assert.equal("hello, world", answer:lower())
      assert.is_nil(broken(promises(block.code), said))
    end)
  end

  for _, path in ipairs(documents) do
    for _, block in ipairs(blocks(read(path))) do
      local name = ("%s:%d"):format(path, block.line)
      if path == "README.md" and block.code:find "50007" then goto continue end
      if block.reason then
        it(name .. " compiles", function() assert(load(block.code, "=" .. name)) end)
      else
        it(name, function()
          if block.code:find "[.%s]ssl%f[^%w_]" and not socket.ssl then pending "needs socket.ssl" end
          local output, status = run(block.code)
          assert.equal(0, status, output)
          local promise = broken(promises(block.code), output)
          assert(not promise, ("%s: not printed: %s\n%s"):format(name, promise, output))
        end)
      end
      ::continue::
    end
  end
end)
