-- Host programs for specs: spec/host/spechost.c, with the library linked in, built by the Makefile.

local h = require "spec.helper"
local support = require "spec.support"

local M = {}

local built

-- A program beside the library under test; made now, where that is the one of this folder.
function M.program(name)
  local folder = h.library:match "^(.*)/"
  if folder == h.root then
    folder = h.root .. "/build"
    built = built or os.execute(("make -s -C %s spec-hosts >/dev/null 2>&1"):format(h.quote(h.root)))
  end
  return folder .. "/" .. name
end

-- Leaves a test where it cannot be built.
function M.needs(pending)
  local f = io.open(M.program "spechost")
  if not f then return pending "needs a C compiler, make and the headers of Lua" end
  f:close()
end

-- Runs Lua code in the host; options and arguments are words for its command line. What it prints, and its status.
function M.run(options, code, ...)
  local file = os.tmpname()
  local script <close> = assert(io.open(file, "w"))
  script:write(code)
  script:close()
  local words = {}
  for i, word in ipairs {...} do words[i] = h.quote(tostring(word)) end
  local text, status = support.output(("exec timeout 60 %s %s %s %s"):format(h.quote(M.program "spechost"), options,
    file, table.concat(words, " ")))
  os.remove(file)
  return text, status
end

-- The same; an error unless it ends well and prints nothing but `ok`.
function M.holds(options, code, ...)
  local text, status = M.run(options, code, ...)
  if status ~= 0 or text ~= "ok\n" then error(("%s\nstatus %s"):format(text, status), 2) end
end

return M
