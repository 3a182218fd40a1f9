-- Do the documents agree with the library and the specs? Part of `make check`; needs the built library.
--
--   lua5.4 tools/check_docs.lua            says what is wrong, one line each, and ends with status 1
--   lua5.4 tools/check_docs.lua --write    first makes docs/reference/names.md anew, with the page and the spec that
--                                          have most to say of a name; any other that has it would do as well
--
-- * docs/reference/names.md has a row for each name in tools/reference_names.txt, and for no other.
-- * A name that is there is a field of the module or a method of sockets; one that comes later is not.
-- * The spec and the page that a row names exist and have the name in them.
-- * Every function, class and method of the library is in a heading or in code in some page of docs/reference other
--   than this one, the index and the list of constants. Those of socket.loop, selectors, server and ssl, and of their
--   objects, are in the page of that name; a family of constants there as `CERT_*`. socket.reactor is internal.
-- * The index of docs/reference links to every page, every link to a file or a heading leads somewhere, every Lua
--   example compiles.

local root = arg[0]:match "^(.*)tools/[^/]*$"
if root == "" then root = "./" end

local function read(path)
  local f <close> = assert(io.open(root .. path))
  return (f:read "a")
end

local function exists(path)
  local f <close> = io.open(path)
  return f ~= nil
end

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- The paths below the project that a shell pattern matches.
local function glob(pattern)
  local list = {}
  local p <close> = assert(io.popen(("cd %s && ls -d %s 2>/dev/null"):format(quote(root), pattern)))
  for path in p:lines() do list[#list + 1] = path end
  return list
end

-- The library built last, by `make` or by `make check`.
local function library()
  local p <close> = assert(io.popen(("cd %s && ls -t socket.so build/check-gcc/socket.so 2>&-"):format(quote(root))))
  local path = root .. assert(p:read "l", "no socket.so: run make first")
  package.cpath = path:gsub("socket%.so$", "?.so") .. ";" .. package.cpath -- socket.ssl lies beside it
  local module = assert(package.loadlib(path, "luaopen_socket"))()
  package.loaded.socket = module
  package.path = root .. "?.lua;" .. package.path
  return module
end

local socket = library()
local problems = 0

local function wrong(...)
  problems = problems + 1
  print(string.format(...))
end

-- Does the word occur in the text, not as a part of a longer one?
local function has_word(text, word) return text:find("%f[%w_]" .. word .. "%f[^%w_]") ~= nil end

---------------------------------------------------------------- the list

local NAMES = "tools/reference_names.txt"

-- {kind, name, later}, in order.
local function read_list()
  local list = {}
  for line in read(NAMES):gmatch "[^\n]+" do
    local entry, later = line:match "^([^:]*): (.+)$"
    local kind, name = (entry or line):match "^(%a[%a ]*) (%S+)$"
    if not line:find "^#" then
      assert(kind, NAMES .. ": " .. line)
      list[#list + 1] = {kind = kind, name = name, later = later}
    end
  end
  return list
end

-- How a name is written in Lua.
local written = {
  method = "s:%s", attribute = "s.%s", host = "{%s, port}", family = "socket.%s*", ["SSL method"] = "ssl object:%s",
}

local function spelling(entry) return (written[entry.kind] or "socket.%s"):format(entry.name) end

-- Is there such a thing in the library?
local there = {
  ["function"] = function(name)
    local meta = type(socket[name]) == "table" and debug.getmetatable(socket[name])
    return type(socket[name]) == "function" or meta and meta.__call ~= nil
  end,
  exception = function(name) return type(socket[name]) == "table" and socket[name].name == "socket." .. name end,
  type = function(name) return type(socket[name]) == "table" end,
  boolean = function(name) return type(socket[name]) == "boolean" end,
  constant = function(name) return math.type(socket[name]) == "integer" end,
  method = function(name) return type(socket.SocketType[name]) == "function" end,
  attribute = function(name)
    local s <close> = socket.socket()
    return s[name] ~= nil and socket.SocketType[name] == nil
  end,
  family = function(prefix)
    for name, value in pairs(socket) do
      if name:sub(1, #prefix) == prefix and math.type(value) == "integer" then return true end
    end
    return false
  end,
  host = function(form)
    local host = form == "integer" and 0 or form:match '^"(.*)"$'
    return pcall(socket.packaddr, socket.AF_INET, {host, 0})
  end,
  ["SSL method"] = function(name) return socket.ssl and type(socket.ssl.SSLSocket[name]) == "function" end,
}

---------------------------------------------------------------- pages and specs

local pages, specs = {}, {} -- path from the project's root -> text
for _, path in ipairs(glob "docs/reference/*.md") do pages[path] = read(path) end
for _, path in ipairs(glob "spec/*_spec.lua") do specs[path] = read(path) end

-- Headings and code of a page, without its examples.
local function terms(text)
  local list = {}
  text = text:gsub("```.-```", "")
  for heading in ("\n" .. text):gmatch "\n#+ ([^\n]*)" do list[#list + 1] = heading end
  for code in text:gsub("\n    [^\n]*", ""):gmatch "`([^`\n]+)`" do list[#list + 1] = code end
  return list
end

local before = {method = ":", attribute = "s%."}

-- Is it described there? A name begins a term, or has its object before it: socket.socket, s:recv.
local function describes(text, kind, name)
  if kind == "host" then return text:find(name, 1, true) ~= nil end
  for _, term in ipairs(terms(text)) do
    if kind == "family" then
      if term:find("%f[%w_]" .. name) then return true end
    elseif has_word(term, name) and (kind == "constant" or term:find("^" .. name .. "%f[^%w_]") or
      term:find((before[kind] or "socket%.") .. name .. "%f[^%w_]")) then
      return true
    end
  end
  return false
end

-- Does the spec mention it, as what it is? Functions and methods also in their try_ form, or as a string.
local function mentions(text, kind, name)
  if kind == "host" then return text:find(name, 1, true) ~= nil end
  if kind == "family" then return text:find("%f[%w_]" .. name .. "%u") ~= nil end
  if kind == "attribute" then return text:find("%." .. name .. "%f[^%w_]") ~= nil end
  if text:find('"' .. name .. '"', 1, true) then return true end
  local from = kind:find "method$" and "[:.]" or "socket%."
  return text:find(from .. name .. "%f[^%w_]") ~= nil or text:find(from .. "try_" .. name .. "%f[^%w_]") ~= nil or
    kind == "constant" and has_word(text, name)
end

local PAGE, INDEX, CONSTANTS = "docs/reference/names.md", "docs/reference/README.md", "docs/reference/constants.md"

-- What a row may name: constants are described by their list, others by any page but that, the table and the index.
local function eligible(path, kind)
  if path:find "^spec/" then return path ~= "spec/examples_spec.lua" end
  return path ~= PAGE and path ~= INDEX and (path == CONSTANTS) == (kind == "constant" or kind == "family")
end

-- Of the files that fit, the one with the name in a heading and most often.
local function choose(files, fits, entry)
  local best, most = nil, -1
  local word = "%f[%w_]" .. entry.name:gsub("%W", "%%%0")
  for path, text in pairs(files) do
    if eligible(path, entry.kind) and fits(text, entry.kind, entry.name) then
      local n = select(2, text:gsub(word, "")) + 1000 * select(2, text:gsub("\n#+[^\n]*" .. word, ""))
      if n > most or n == most and path < best then best, most = path, n end
    end
  end
  return best and best:match "[^/]*$"
end

---------------------------------------------------------------- the table of names

local HEAD = [[
# The names of Python's manual

Every name in Python's manual of its module `socket`, through its versions, and in a common overview of it: how it is
written here, the page that describes it, and the spec that covers it. `make check` compares this table with the
library, with the pages and the specs, and with the list it was made from. Names that Python has added since are
compared by `spec/const_spec.lua`; those absent are in `spec/absent_from_python.txt`, each with its reason.

]]

local SECTIONS = {
  {"Exceptions", "exception"}, {"Functions", "function"}, {"Type and feature test", "type", "boolean"},
  {"Methods of sockets", "method"}, {"Attributes of sockets", "attribute"}, {"Methods of SSL objects", "SSL method"},
  {"Special hosts", "host"}, {"Families of constants", "family"}, {"Constants by name", "constant"},
}

local function cell(s) return (s:gsub("|", "\\|")) end

-- Spelling -> {page, spec} of the rows there are.
local function read_rows()
  local rows, order = {}, {}
  for line in (pages[PAGE] or ""):gmatch "[^\n]+" do
    local name, state, page, spec = line:match "^| `([^|]*)` | ([^|]*) | ([^|]*) | ([^|]*) |$"
    if name then
      if rows[name] then wrong("%s: two rows for %s", PAGE, name) end
      rows[name] = {state = state, page = page:match "%[([^%]]*)%]" or "", spec = spec:match "`([^`]*)`" or ""}
      order[#order + 1] = name
    end
  end
  return rows, order
end

local function state_of(entry) return entry.later and "later: " .. entry.later or "yes" end

local function write_table(list)
  local out = {HEAD}
  for _, section in ipairs(SECTIONS) do
    out[#out + 1] = ("## %s\n\n| name | implemented | page | spec |\n|---|---|---|---|\n"):format(section[1])
    for _, entry in ipairs(list) do
      if entry.kind == section[2] or entry.kind == section[3] then
        local name = cell(spelling(entry))
        local page = choose(pages, describes, entry)
        local spec = choose(specs, mentions, entry)
        if entry.later then page, spec = nil, nil end
        out[#out + 1] = ("| `%s` | %s | %s | %s |\n"):format(name, state_of(entry),
          page and ("[%s](%s)"):format(page, page) or "", spec and ("`%s`"):format(spec) or "")
      end
    end
    out[#out + 1] = "\n"
  end
  local f <close> = assert(io.open(root .. PAGE, "w"))
  f:write((table.concat(out):gsub("\n\n$", "\n")))
end

local function check_row(entry, row)
  local name = spelling(entry)
  if row.state ~= state_of(entry) then wrong("%s: %s is '%s', not '%s'", PAGE, name, state_of(entry), row.state) end
  local found = there[entry.kind](entry.name)
  if found and entry.later then wrong("%s: %s is there now", NAMES, name) end
  if entry.later then return end
  if not found then wrong("%s: %s is not there", NAMES, name) end
  local page, spec = pages["docs/reference/" .. row.page], specs["spec/" .. row.spec]
  if not page then wrong("%s: no page for %s", PAGE, name)
  elseif not describes(page, entry.kind, entry.name) then wrong("%s: %s is not in %s", PAGE, name, row.page) end
  if not spec then wrong("%s: no spec for %s", PAGE, name)
  elseif not mentions(spec, entry.kind, entry.name) then wrong("%s: %s is not in %s", PAGE, name, row.spec) end
end

local list = read_list()
if arg[1] == "--write" then
  write_table(list)
  pages[PAGE] = read(PAGE)
end

local rows, order = read_rows()
local known = {}
for _, entry in ipairs(list) do
  local name = cell(spelling(entry))
  if known[name] then wrong("%s: %s is there twice", NAMES, name) end
  known[name] = true
  if rows[name] then check_row(entry, rows[name]) else wrong("%s: no row for %s", PAGE, name) end
end
for _, name in ipairs(order) do
  if not known[name] then wrong("%s: %s is not in %s", PAGE, name, NAMES) end
end

---------------------------------------------------------------- everything is described

local function described(kind, name)
  for path, text in pairs(pages) do
    if eligible(path, kind) and describes(text, kind, name) then return true end
  end
  return false
end

local public = {}
for name, value in pairs(socket) do
  local t = type(value)
  if (t == "function" or t == "table" or t == "boolean") and not name:find "^try_" then
    public[#public + 1] = {"function", name, "socket." .. name}
  end
end
for name in pairs(socket.SocketType) do
  if not name:find "^try_" then public[#public + 1] = {"method", name, "s:" .. name} end
end
for _, name in ipairs {"family", "type", "proto", "timeout"} do
  public[#public + 1] = {"attribute", name, "s." .. name}
end
table.sort(public, function(a, b) return a[3] < b[3] end)
for _, p in ipairs(public) do
  if not described(p[1], p[2]) then wrong("docs/reference: %s is not described", p[3]) end
end

---------------------------------------------------------------- the modules beside

-- The fields of what stands for a class: a table, or an object of it.
local function members(value)
  local meta = debug.getmetatable(value)
  local index = type(value) == "table" and value.__index or meta and meta.__index
  if type(index) == "table" then return index end
  assert(type(value) == "table", "no table of methods")
  return value
end

-- The methods behind a C function __index, one of which is known.
local function methods_with(value, name)
  local index = debug.getmetatable(value).__index
  if type(index) == "table" then return index end
  for i = 1, 10 do
    local _, t = debug.getupvalue(index, i)
    if type(t) == "table" and rawget(t, name) then return t end
  end
  error("no table of methods with " .. name)
end

-- Words of a page's headings and code, and the families of constants it names.
local function vocabulary(path)
  local words, families = {}, {}
  for _, term in ipairs(terms(pages[path] or "")) do
    for word, star in term:gmatch "([%w_]+)(%*?)" do
      words[word] = true
      if star == "*" then families[#families + 1] = word end
    end
  end
  return words, families
end

local function check_module(page, parts)
  local words, families = vocabulary("docs/reference/" .. page)
  local seen = 0
  for prefix, part in pairs(parts) do
    for name in pairs(part) do
      local found = words[name] or type(name) ~= "string" or name:find "^_" or name:find "^try_"
      for _, family in ipairs(families) do found = found or name:sub(1, #family) == family end
      if not found then wrong("docs/reference/%s: %s%s is not described", page, prefix, name) end
      seen = seen + 1
    end
  end
  return seen
end

local function beside()
  local loop, selectors, server = require "socket.loop", require "socket.selectors", require "socket.server"
  local parts = {["loop."] = loop, ["l:"] = members(loop.new()), ["queue:"] = members(loop.queue()),
    ["event:"] = members(loop.event())}
  loop.run(function()
    parts["task."], parts["group:"] = getmetatable(loop.current()), members(loop.group())
  end)
  local n = check_module("loop.md", parts)
  n = n + check_module("selectors.md",
    {["selectors."] = selectors, ["sel:"] = members(selectors.DefaultSelector())})
  parts = {["server."] = server}
  for name, class in pairs(server) do parts[name .. ":"] = class end
  parts["TaskMixIn:"] = server.TaskMixIn
  n = n + check_module("server.md", parts)
  local a, b = socket.socketpair()
  n = n + check_module("files.md", {["f:"] = methods_with(b:makefile(), "setlimit")})
  a:close()
  b:close()
  local ssl = socket.ssl
  if not ssl then return n end
  local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS)
  local methods = {}
  for name, f in pairs(ssl.SSLSocket) do
    if not socket.SocketType[name] then methods[name] = f end
  end
  return n + check_module("ssl.md", {["ssl."] = ssl, ["ssl socket:"] = methods, ["ssl object:"] = ssl.SSLObject,
    ["ctx:"] = methods_with(ctx, "wrap_socket"), ["bio:"] = methods_with(ssl.MemoryBIO(), "write_eof")})
end

local others = beside()

---------------------------------------------------------------- links and examples

local index = pages["docs/reference/README.md"] or ""
for path in pairs(pages) do
  local name = path:match "[^/]*$"
  if name ~= "README.md" and not index:find("](" .. name .. ")", 1, true) then
    wrong("docs/reference/README.md: no link to %s", name)
  end
end

-- The names that GitHub gives the headings of a document.
local function anchors(text)
  local set = {}
  for heading in ("\n" .. text:gsub("```.-```", "")):gmatch "\n#+ +([^\n]*)" do
    local name = heading:gsub("%[([^%]]*)%]%b()", "%1"):lower():gsub("[^%w_ -]", ""):gsub(" ", "-")
    set[name] = true
  end
  return set
end

for _, path in ipairs(glob "*.md docs/*.md docs/*/*.md") do
  local text = read(path)
  for target, anchor in text:gsub("```.-```", ""):gmatch "%]%(([^)#]*)#([^)]+)%)" do
    local file = target == "" and path or path:match "^(.-)[^/]*$" .. target
    if not target:find "^%a+:" then
      file = file:gsub("[^/]+/%.%./", "")
      if exists(root .. file) and not anchors(read(file))[anchor] then
        wrong("%s: there is no heading %s#%s", path, target, anchor)
      end
    end
  end
  for target in text:gsub("```.-```", ""):gmatch "%]%(([^)#]+)[^)]*%)" do
    if not target:find "^%a+:" and not exists(root .. path:match "^(.-)[^/]*$" .. target) then
      wrong("%s: the link to %s leads nowhere", path, target)
    end
  end
  for example in (pages[path] or ""):gmatch "```lua\n(.-)```" do
    local ok, message = load(example, "=example")
    if not ok then wrong("%s: %s", path, message) end
  end
end

if problems > 0 then os.exit(1, true) end
print(#list .. " names, " .. #public .. " functions, classes and methods, " .. others .. " of the modules beside")
