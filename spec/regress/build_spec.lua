-- The Makefile: what was compiled before is compiled anew when what it was made with has changed.

local h = require "spec.helper"
local support = require "spec.support"

describe("make", function()
  local folder, object

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir -p " .. folder .. "/include/net")
    object = folder .. "/lsocket_timer.o"
  end)

  teardown(function() os.execute("rm -rf " .. folder) end)

  -- Is the object compiled by a make with these settings?
  local function compiles(settings)
    local text, status = support.output(("env -i PATH=\"$PATH\" C_INCLUDE_PATH=%s/include " ..
      "make -C %s BUILD=%s %s %s"):format(folder, h.quote(h.root), folder, settings or "", object))
    assert.equal(0, status, text)
    return text:find(" -c ", 1, true) ~= nil
  end

  it("compiles once, and again with other flags, or where a header comes that sources ask for", function()
    if not support.has "make" or not support.has "cc" then return pending "needs make and a C compiler" end
    os.remove(object)
    assert.is_true(compiles())
    assert.is_false(compiles())
    assert.is_true(compiles "CPPFLAGS=-DSOMETHING")
    assert.is_true(compiles())
    local header <close> = assert(io.open(folder .. "/include/net/ethertypes.h", "w")) -- of BSD; no Linux has it
    header:write "\n"
    header:close()
    assert.is_true(compiles())
    assert.is_false(compiles())
    os.remove(folder .. "/include/net/ethertypes.h")
    assert.is_true(compiles())
  end)

  it("compiles again when a system header has changed", function()
    if not support.has "make" or not support.has "cc" then return pending "needs make and a C compiler" end
    compiles()
    local rules <close> = assert(io.open(folder .. "/lsocket_timer.d"))
    assert.matches("sys/socket.h", rules:read "a", 1, true)
  end)
end)

describe("the runner of the specs", function()
  it("ends with the count of passed, failed and skipped", function()
    local name = os.tmpname()
    local file = name .. "_spec.lua"
    local f <close> = assert(io.open(file, "w"))
    f:write [[
      describe("some", function()
        it("passes", function() end)
        it("fails", function() assert.equal(1, 2) end)
        it("errs", function() error "!" end)
        it("is skipped", function() pending "not here" end)
      end)
      describe("another", function()
        after_each(function() error "after" end)
        it("passes", function() end)
      end)]]
    f:close()
    local text, status = support.output(("cd %s && env -u MAKEFLAGS %s spec/run.lua %s"):format(h.quote(h.root),
      os.getenv "LSOCKET_LUA" or "lua5.4", file))
    os.remove(name)
    os.remove(file)
    assert.matches("\n2 passed, 3 failed, 1 skipped\n$", text)
    assert.not_equal(0, status)
  end)
end)
