-- The debug library finds the object that holds a lookup among the temporary values of a C function, and can end it by
-- its metamethod: also while its answer is being read. That must be noticed before freed memory is read.

local support = require "spec.support"

describe("a lookup that the debug library gives up", function()
  for name, call in pairs {
    getaddrinfo = [[socket.getaddrinfo("127.0.0.1", 80)]],
    ["getaddrinfo, with a canonical name,"] = [[socket.getaddrinfo("localhost", 80, {flags = socket.AI_CANONNAME})]],
    gethostbyaddr = [[socket.gethostbyaddr "127.0.0.1"]],
    getnameinfo = [[socket.getnameinfo({"127.0.0.1", 80}, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)]],
    create_connection = [[socket.create_connection({"localhost", 1}, 1)]],
    ["create_connection to one address"] = [[socket.create_connection({"127.0.0.1", 1}, 1)]],
  } do
    it("is not read any more: " .. name .. " fails", function()
      local text, status = support.run([[
        local socket = require "socket"
        local armed = false
        local function end_lookups()
          for level = 2, 6 do
            for i = 1, 250 do
              local known, name, v = pcall(debug.getlocal, level, i)
              if not known or not name then break end
              local meta = type(v) == "userdata" and debug.getmetatable(v)
              if meta and meta.__close and not meta.__index then meta.__close(v) end
            end
          end
        end
        local function trap()
          setmetatable({}, {__gc = function()
            if armed then end_lookups() end
            trap()
          end})
        end
        for _ = 1, 3 do trap() end
        collectgarbage("incremental", 1, 1000, 40)
        collectgarbage()
        armed = true
        local ok, e = pcall(function() ]] .. call .. [[ end)
        armed = false
        print(ok, e)
      ]])
      assert.equal(0, status)
      assert.matches("^false\t.*its functions were tampered with\n$", text)
    end)
  end
end)
