-- examples/embed: the game, and what it promises.

local host = require "spec.support.host"
local helper = require "spec.helper"
local support = require "spec.support"

describe("the game of examples/embed", function()
  before_each(function() host.needs(pending) end)

  -- Its output and status. With a sanitizer, or on a busy machine, frames take what they take: the limit is generous.
  local function play(options)
    return support.output(("exec timeout 60 %s -l 200 -f %s %s"):format(helper.quote(host.program "game"),
      helper.quote(helper.root), options))
  end

  it("downloads a level between its frames", function()
    local text, status = play "4"
    assert.equals(0, status, text)
    for _, part in ipairs {"100 % of the level", "may not serve elsewhere: refused by the host's policy",
        "may not phone home: refused by the host's policy", "over 200 ms because of networking: 0"} do
      assert.truthy(text:find(part, 1, true), text)
    end
    local frames = tonumber(text:match "in each of (%d+) frames")
    local sum = 0
    for n in text:gmatch "ms +(%d+) frames" do sum = sum + n end
    assert.is_true(frames > 4, text)
    assert.equals(frames, sum + tonumber(text:match "longer +(%d+) frames"), text)
  end)

  it("survives scripts for which there is no memory, at any point", function()
    for kib = 10, 310, 20 do
      local text, status = play(("-n 3 -m %d 1"):format(kib))
      assert.is_true(status == 0 or status == 1, text)
      assert.falsy(text:find "left %d+ bytes", text)
      if kib < 60 then assert.truthy(text:find("level_client failed: not enough memory", 1, true), text) end
    end
  end)

  it("ends at any frame, with tasks that wait", function()
    for frames = 0, 8 do
      local text, status = play(("-n %d 64"):format(frames))
      assert.equals(1, status, text)        -- the level is not there yet
      assert.falsy(text:find "left %d+ bytes", text)
      assert.falsy(text:find("failed", 1, true), text)
    end
  end)
end)
