-- Loaded by busted before the specs (.busted); specs that need more say
-- require "spec.helper".
--
-- It makes require "socket" find this checkout's library, whatever else the
-- machine has under that name. Environment, all optional, set by the Makefile:
--   LSOCKET_SO         another build of the library, such as build/asan/socket.so
--   LSOCKET_LUA        the Lua program child processes run
--   LSOCKET_SANITIZED  set when the library reports memory errors and leaks

local lfs = require "lfs"

local M = {}

local function absolute(path)
  return path:sub(1, 1) == "/" and path or lfs.currentdir() .. "/" .. path
end

-- The folder this checkout lies in, without a slash at the end.
M.root = absolute(debug.getinfo(1, "S").source:match "^@(.*)spec/helper%.lua$" or "./"):gsub("/%.?/?$", "")

-- The library under test.
M.library = absolute(os.getenv "LSOCKET_SO" or M.root .. "/socket.so")

-- True when the library is built with AddressSanitizer and UBSan.
M.sanitized = os.getenv "LSOCKET_SANITIZED" ~= nil

-- Of a pointer.
M.bits = 8 * string.packsize "T"

local lua_path = M.root .. "/?.lua;"
local lua_cpath = M.library:match "^(.*/)" .. "?.so;"

local function prepend(list, entry)
  return list:sub(1, #entry) == entry and list or entry .. list
end
package.path = prepend(package.path, lua_path)
package.cpath = prepend(package.cpath, lua_cpath)

-- A string as one word of a shell command.
function M.quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

-- The beginning of a shell command that runs Lua 5.4 with the library under
-- test; arguments of lua follow. Such processes count in `make coverage` if
-- they end by themselves or through an error, not if a signal kills them.
--
--   local h = require "spec.helper"
--   local p = io.popen(h.lua() .. " -e " .. h.quote [[print(require "socket")]])
--
-- h.lua {leaks = false} switches the search for leaks off in sanitized runs:
-- for children that strace(1) watches, or that end while sockets are open.
function M.lua(options)
  local leaks = ""
  if M.sanitized and options and options.leaks == false then
    leaks = " ASAN_OPTIONS=" .. M.quote((os.getenv "ASAN_OPTIONS" or "") .. ":detect_leaks=0")
  end
  return ("env -u LUA_PATH_5_4 -u LUA_CPATH_5_4 -u LUA_INIT -u LUA_INIT_5_4%s LUA_PATH=%s LUA_CPATH=%s %s"):format(
    leaks, M.quote(lua_path .. ";"), M.quote(lua_cpath .. ";"), M.quote(os.getenv "LSOCKET_LUA" or "lua5.4"))
end

-- One module for all specs: busted forgets modules between files, but keeps
-- those loaded before the first.
package.loaded["spec.helper"] = M
local found = assert(package.searchpath("socket", lua_cpath), "no " .. M.library .. ": run make first")
assert(found == M.library, "LSOCKET_SO must name a file socket.so")
require "socket"

return M
