-- For specs of examples/: runs the programs as a person does, each bounded by timeout(1).

local helper = require "spec.helper"

local M = {}

local running = {}

-- The shell command of a program and its arguments.
function M.command(script, ...)
  local words = {"exec timeout 20", helper.lua(), helper.quote(("%s/examples/%s.lua"):format(helper.root, script))}
  for _, word in ipairs {...} do words[#words + 1] = helper.quote(tostring(word)) end
  return table.concat(words, " ") .. " 2>&1"
end

-- Starts a command; returns the pipe of its output.
function M.open(command)
  local pipe = assert(io.popen(command))
  running[#running + 1] = pipe
  return pipe
end

-- Everything a command prints, and whether it ended well.
function M.output(pipe)
  local text = pipe:read "a"
  return text, (pipe:close())
end

function M.run(script, ...)
  return M.output(assert(io.popen(M.command(script, ...))))
end

-- Starts a server; returns its pipe, the address it listens on, the port, and
-- what it said before.
function M.start(script, ...)
  local pipe = M.open(M.command(script, ...))
  local before = {}
  for line in pipe:lines() do
    local address = line:match "^listening on (.+)$"
    if address then
      return pipe, address, tonumber(address:match ":(%d+)$"), table.concat(before, "\n")
    end
    before[#before + 1] = line
  end
  error(script .. " did not start:\n" .. table.concat(before, "\n"))
end

-- For after_each: a test that failed half-way leaves a server; timeout(1) ends it.
function M.stop()
  for i = #running, 1, -1 do
    if io.type(running[i]) == "file" then running[i]:close() end
    running[i] = nil
  end
end

return M
