-- A name to be looked up belongs to the script's table no more once a finalizer has taken it out there: what is asked
-- about must be that name all the same, not what Lua has put into its memory since.

local netns = require "spec.support.netns"
local socket = require "socket"

local net = netns.new()

-- luacheck: globals asked

-- Runs f(address, arm) with the collector at its most eager. After arm() a finalizer runs at each allocation, which
-- takes the name away and fills what becomes free with names of the same length: asked about only if f reads freed
-- memory.
local function deprived(f)
  local armed, address, wrong = false, {false, 1}, {}
  local function trap()
    setmetatable({}, {__gc = function()
      if armed then
        address[1] = nil
        wrong[#wrong % 100 + 1] = ("w"):rep(50) .. (".wrong%03d"):format(#wrong)
      end
      trap()
    end})
  end
  local function arm() armed = true end
  local function fill(i) address[1] = ("r"):rep(50) .. (".right%03d"):format(i) end
  for _ = 1, 3 do trap() end
  collectgarbage("incremental", 1, 1000, 40)
  collectgarbage()
  for i = 1, 100 do
    armed = false
    fill(i)
    pcall(f, address, arm)
  end
  armed = false
  collectgarbage("incremental", 200, 100, 13)
end

describe("the name of a host, when a finalizer takes it out of its table,", function()
  teardown(function() net:stop() end)

  for name, f in pairs {
    create_server = function(address, arm)
      local options = {}
      arm()
      socket.create_server(address, options)
    end,
    create_connection = function(address, arm)
      arm()
      socket.create_connection(address)
    end,
    connect = function(address, arm)
      local s <close> = socket.socket()
      arm()
      s:connect(address)
    end,
    bind = function(address, arm)
      local s <close> = socket.socket()
      arm()
      s:bind(address)
    end,
    sendto = function(address, arm)
      local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      arm()
      s:sendto("x", address)
    end,
  } do
    it("is what " .. name .. " asks about", net:inside(function()
      deprived(f)
      local questions = table.concat(asked(), "\n")
      assert.matches("rrr.right001", questions, 1, true)
      assert.is_nil(questions:find("wrong", 1, true))
    end))
  end
end)
