-- The recipes of docs/recipes.md, as they stand in examples/with_*.lua: blocking code under other schedulers.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local support = require "spec.support"
local workload = require "spec.support.interplay"

-- Debian's copas is in the folder of Lua 5.1.
local path = package.path .. ";/usr/share/lua/5.1/?.lua"
local libraries = {copas = {"copas", "coxpcall", "socket.core"}, cqueues = {"cqueues", "_cqueues"}, luv = {"luv"}}

local function present(library, pending)
  for _, module in ipairs(libraries[library]) do
    if not package.searchpath(module, path .. ";" .. package.cpath) then
      pending(("%s is not installed"):format(library))
    end
  end
end

local function read(name)
  local f <close> = assert(io.open(h.root .. "/" .. name))
  return f:read "a"
end

local function example(library)
  local text = read(("examples/with_%s.lua"):format(library))
  local recipe, program = text:match "\n(%-%-%-%- the recipe.*)\n(%-%-%-%- the program.*)$"
  return assert(recipe, "no recipe"), program
end

local function run(code, arguments)
  return support.run('package.path = package.path .. ";/usr/share/lua/5.1/?.lua" ' .. code,
    {args = arguments, leaks = false})
end

local names = {}
for name in pairs(workload) do names[#names + 1] = name end
table.sort(names)

for library in pairs(libraries) do
  describe("blocking code under " .. library, function()
    for _, name in ipairs(names) do
      if library ~= "copas" or not name:find "that are no tasks" then
        it(name, function()
          present(library, pending)
          local arguments = ("%s %s %s"):format(h.quote(certs.path "server.pem"), h.quote(certs.path "server.key"),
            h.quote(certs.path "ca.pem"))
          local code = ('warn "@on" %s require "spec.support.interplay"[%q](spawn, run) print "done"'):format(
            (example(library)), name)
          local said, status = run(code, arguments)
          assert.equal("done\n", said)
          assert.equal(0, status)
        end)
      end
    end

    it("is what the example shows", function()
      present(library, pending)
      local recipe, program = example(library)
      local said, status = run(recipe .. program)
      assert.equal(0, status, said)
      for client = 1, 3 do
        for round = 1, 3 do assert.matches(("CLIENT %d, ROUND %d\n"):format(client, round), said) end
      end
      -- The last client has begun before the first is through.
      assert.is_true(said:find "CLIENT 3, ROUND 1" < said:find "CLIENT 1, ROUND 3")
      assert.matches("accept: timed out %(ETIMEDOUT%)\n", said)
      assert.matches("9 answers of 0%.1 seconds each in 0%.[3-7] seconds\n$", said)
    end)

    it("is what docs/recipes.md shows", function()
      local recipe = example(library)
      local section = read("docs/recipes.md"):match("\n## " .. library .. "\n(.-)\n## ")
      local code = section:match "```lua\n(.-)\n```"
      assert.is_truthy(recipe:find(code, 1, true), "not in the example: " .. code)
    end)
  end)
end

it("The three examples run the same program", function()
  local _, program = example "luv"
  for library in pairs(libraries) do assert.equal(program, (select(2, example(library)))) end
end)
