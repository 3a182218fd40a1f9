--[[ genconst.lua: makes the C table of constants and its manual page from tools/constants.txt.

  lua5.4 tools/genconst.lua                writes lsocket_const.inc and docs/reference/constants.md
  lua5.4 tools/genconst.lua --check        exits 1 if one of them is out of date
  lua5.4 tools/genconst.lua --verify [cc]  compares the list's values for Linux with the headers of this machine
]]

local root = arg[0]:match("^(.*)tools/[^/]*$") or "../"
local LIST = "tools/constants.txt"
local LONGEST = 4095 -- what every C11 compiler takes as one string literal

local ATTRIBUTE = {}
for word in ("linux win default c if or string wsa wide"):gmatch("%l+") do ATTRIBUTE[word] = true end
local PLATFORM = {linux = "defined(__linux__)", win = "defined(_WIN32)"}
local PLATFORM_NAME = {linux = "Linux", win = "Windows"}

---------------------------------------------------------------------------------------------------
-- Reading the list

local function trim(s) return (s:gsub("^%s+", ""):gsub("%s+$", "")) end

local function read_list()
  local groups, group, header, seen = {}, nil, nil, {}
  local lineno = 0
  local function fail(message) error(("%s:%d: %s"):format(LIST, lineno, message), 0) end

  local directive = {}
  function directive.group(rest)
    local id, title, manual = rest:match("^(%w+)%s*|%s*(.-)%s*|%s*(.-)$")
    if not id then fail("expected: @group ID | title | manual pages") end
    group = {id = id, title = title, manual = manual, text = {}, export = true}
    header = nil
    groups[#groups + 1] = group
  end
  function directive.export() group.export = false end
  function directive.only(rest)
    if not PLATFORM[rest] then fail("unknown platform " .. rest) end
    group.only = rest
  end
  function directive.text(rest) group.text[#group.text + 1] = rest end
  function directive.header(rest) header = rest end

  local function constant(line)
    local body, note = line:match("^(.-)%s+%-%-%s+(.*)$")
    local c = {note = note, header = header}
    for word in (body or line):gmatch("%S+") do
      if not c.name then
        c.name = word
      else
        local key, value = word:match("^(%l+):?(.*)$")
        if not ATTRIBUTE[key] then fail("unknown attribute " .. word) end
        c[key] = value
      end
    end
    if not c.name:match("^%u[%w_]*$") then fail("not a name: " .. c.name) end
    if seen[c.name] then fail(c.name .. " is here twice") end
    seen[c.name] = true
    if not (group and header) then fail("a constant outside of @group and @header") end
    if group.only and not (c[group.only] or c.string) then fail(c.name .. " needs a value for " .. group.only) end
    for _, key in ipairs {"linux", "win", "default"} do
      if c[key] and not math.tointeger(tonumber(c[key])) then fail(key .. " is not an integer") end
    end
    group[#group + 1] = c
  end

  for line in io.lines(root .. LIST) do
    lineno = lineno + 1
    line = trim(line)
    if line:match("^@") then
      local word, rest = line:match("^@(%l+)%s*(.*)$")
      if not directive[word] then fail("unknown directive " .. line) end
      if word ~= "group" and not group then fail("expected @group first") end
      directive[word](rest)
    elseif line ~= "" and not line:match("^#") then
      constant(line)
    end
  end
  return groups
end

---------------------------------------------------------------------------------------------------
-- The C table

local C_HEAD = [[
/*
** lsocket_const.inc: the constants of the module `socket`.
** Made by tools/genconst.lua from tools/constants.txt; change that list and run the tool.
**
** Read several times by lsocket_const.c, which says each time what a group and its rows stand for:
**   GROUP(id)       begins a family that the module exports; LOOKUP(id) one that only serves lookups
**   K(name, value)  an integer      S(name, value)  a string      END(id)  ends the family
**   W(name, value)  an integer of a family in which some, on Linux, need more than 16 bits
** The names of integers are written shortly: a byte from \200 on stands for a piece of text, the first of those below
** for \200. WORD(text, offset) is one of them, longest first; read with LSOCK_WORDS defined, there are only these.
*/
]]

---------------------------------------------------------------------------------------------------
-- Names, written shortly

local WORDS, LONGEST_WORD, LONGEST_NAME = 127, 8, 63

-- The piece of text that saves most when one byte stands for it.
local function best_word(parts)
  local count, best, most = {}, nil, 0
  for _, text in ipairs(parts) do
    for i = 1, #text do
      for j = i + 1, math.min(i + LONGEST_WORD - 1, #text) do
        local word = text:sub(i, j)
        count[word] = (count[word] or 0) + 1
      end
    end
  end
  for word, n in pairs(count) do
    local saved = n * (#word - 1) - #word - 3
    if saved > most or saved == most and best and word < best then best, most = word, saved end
  end
  return best
end

local function choose_words(groups)
  local words, parts = {}, {}
  for _, group in ipairs(groups) do
    for _, c in ipairs(group) do
      if #c.name > LONGEST_NAME then error(c.name .. " is too long a name", 0) end
      if not c.string then parts[#parts + 1] = c.name end
    end
  end
  while #words < WORDS do
    local word, rest = best_word(parts), {}
    if not word then break end
    words[#words + 1] = word
    for _, text in ipairs(parts) do
      local from = 1
      repeat
        local i, j = text:find(word, from, true)
        if (i or #text + 1) - from > 1 then rest[#rest + 1] = text:sub(from, (i or 0) - 1) end
        from = (j or #text) + 1
      until not i
    end
    parts = rest
  end
  table.sort(words, function(a, b) return #a > #b or #a == #b and a < b end)
  return words
end

-- At each place the first word that fits, as lsocket_const.c does it with the names it is asked for.
local function shorten(words, name)
  local out, i = {}, 1
  while i <= #name do
    local code, length = name:sub(i, i), 1
    for n, word in ipairs(words) do
      if name:sub(i, i + #word - 1) == word then
        code, length = ("\\%o"):format(127 + n), #word
        break
      end
    end
    out[#out + 1] = code
    i = i + length
  end
  return table.concat(out)
end

local function row(c, value)
  local comment = value == c.name and "" or " /* " .. c.name .. " */"
  return ('%s("%s", %s)%s'):format(c.wide and "W" or "K", c.short, value, comment)
end

-- The ways to get the value of a constant, best first: {condition, macro call}; the last condition may be nil ("else").
local function choices(c)
  local list = {}
  local function add(condition, value) list[#list + 1] = {condition, row(c, value)} end
  if c.string then
    return {{"defined(" .. c["if"] .. ")", ("S(%q, %q)"):format(c.name, c.string)}}
  end
  if c.wsa then
    local name = c.wsa ~= "" and c.wsa or "WSA" .. c.name
    add(("defined(_WIN32) && defined(%s)"):format(name), name)
  end
  add(("defined(%s)"):format(c["if"] or c.c or c.name), c.c or c.name)
  if c["or"] then add(("defined(%s)"):format(c["or"]), c["or"]) end
  if c.linux then add(PLATFORM.linux, c.linux) end
  if c.win then add(PLATFORM.win, c.win) end
  if c.default then add(nil, c.default) end
  return list
end

-- Does a family have a value that 16 bits cannot hold, or values for a sign and others for none?
local function is_wide(group)
  local low, high = 0, 0
  for _, c in ipairs(group) do
    for _, key in ipairs {"linux", "win", "default"} do
      local value = c[key] and math.tointeger(tonumber(c[key])) or 0
      low, high = math.min(low, value), math.max(high, value)
    end
    if c.wide then return true end
  end
  return low < -0x8000 or high > (low < 0 and 0x7fff or 0xffff)
end

local function emit_c(groups)
  local out = {C_HEAD}
  local function put(...) out[#out + 1] = table.concat {...} end
  local words, offset = choose_words(groups), 0
  put("\n#if defined(LSOCK_WORDS)\n")
  for _, word in ipairs(words) do
    put(("WORD(%q, %d)\n"):format(word, offset))
    offset = offset + #word + 1
  end
  put("#undef LSOCK_WORDS\n#undef WORD\n#else\n")
  for _, group in ipairs(groups) do
    put("\n/* ", group.title, " */\n", group.export and "GROUP" or "LOOKUP", "(", group.id, ")\n")
    if group.only then put("#if ", PLATFORM[group.only], "\n") end
    local length, wide = 0, is_wide(group)
    for _, c in ipairs(group) do
      c.wide = wide
      c.short = shorten(words, c.name)
      length = length + #c.name + 1
      if group.only then
        put(c.string and ("S(%q, %q)\n"):format(c.name, c.string) or
          row(c, c[group.only]) .. "\n")
      else
        local list = choices(c)
        for i, choice in ipairs(list) do
          put(choice[1] and (i == 1 and "#if " or "#elif ") .. choice[1] or "#else", "\n", choice[2], "\n")
        end
        put("#endif\n")
      end
    end
    if group.only then put("#endif\n") end
    if length >= LONGEST then error(("group %s is too long for a C string; divide it"):format(group.id), 0) end
    put("END(", group.id, ")\n")
  end
  put("\n#undef GROUP\n#undef LOOKUP\n#undef K\n#undef W\n#undef S\n#undef END\n#endif\n")
  return table.concat(out)
end

---------------------------------------------------------------------------------------------------
-- The manual page

local MD_HEAD = [[
# Constants

<!-- Made by tools/genconst.lua from tools/constants.txt; change that list and run the tool. -->

The integers and strings below are fields of `require "socket"`, under the names they have in C and in Python's
`socket` module: `socket.AF_INET`, `socket.SO_REUSEADDR`. A constant is there where the platform knows it, so that
a script can ask:

    if socket.SO_REUSEPORT then s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1) end

On Linux the constants of the kernel are present whatever headers the library was built with; the kernel may still
refuse a family or an option it was built without, or is too old for. The manual pages named are those of Linux.

]]

local function emit_md(groups)
  local out, total = {MD_HEAD}, 0
  local function put(...) out[#out + 1] = table.concat {...} end
  local function anchor(title) return (title:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")) end
  put("| family | names |\n|---|---|\n")
  for _, group in ipairs(groups) do
    put(("| [%s](#%s) | %d |\n"):format(group.title, anchor(group.title), #group))
    if group.export then total = total + #group end
  end
  put(("\n%d names in all, not counting the last two families; no platform has every one of them.\n"):format(total))
  for _, group in ipairs(groups) do
    put("\n## ", group.title, "\n\n")
    local paragraph = {table.unpack(group.text)}
    if group.only then paragraph[#paragraph + 1] = ("Only on %s."):format(PLATFORM_NAME[group.only]) end
    if group.manual ~= "" then paragraph[#paragraph + 1] = ("See %s."):format(group.manual) end
    local headers, known = {}, {}
    for _, c in ipairs(group) do
      if not known[c.header] then
        known[c.header] = true
        headers[#headers + 1] = "`<" .. c.header .. ">`"
      end
    end
    paragraph[#paragraph + 1] = ("Declared in %s."):format(table.concat(headers, ", "))
    put(table.concat(paragraph, " "), "\n")
    local rest, described = {}, false
    for _, c in ipairs(group) do
      if c.note then
        put(described and "" or "\n| name | meaning |\n|---|---|\n", "| `", c.name, "` | ", c.note, " |\n")
        described = true
      else
        rest[#rest + 1] = "`" .. c.name .. "`"
      end
    end
    if #rest > 0 then
      put("\n", described and "Also: " or "")
      local column = described and 6 or 0
      for i, name in ipairs(rest) do
        if i > 1 then
          local wrap = column + #name + 1 > 118
          put(wrap and "\n" or " ")
          column = wrap and 0 or column + 1
        end
        put(name)
        column = column + #name
      end
      put("\n")
    end
  end
  return table.concat(out)
end

---------------------------------------------------------------------------------------------------
-- Comparing with the headers

-- Headers that do not stand alone.
local NEEDS = {
  ["bluetooth/hci.h"] = {"bluetooth/bluetooth.h"},
  ["bluetooth/l2cap.h"] = {"bluetooth/bluetooth.h"},
  ["bluetooth/rfcomm.h"] = {"bluetooth/bluetooth.h"},
}

local function verify(groups, cc)
  if not os.execute(cc .. " --version >/dev/null 2>&1") then error("no C compiler " .. cc, 0) end
  local by_header, headers = {}, {}
  for _, group in ipairs(groups) do
    for _, c in ipairs(group) do
      if c.linux then
        if not by_header[c.header] then
          by_header[c.header] = {}
          headers[#headers + 1] = c.header
        end
        table.insert(by_header[c.header], c)
      end
    end
  end
  table.sort(headers)
  local wrong = 0
  for _, header in ipairs(headers) do
    local name = os.tmpname()
    local f <close> = assert(io.open(name, "w"))
    f:write("#define _GNU_SOURCE 1\n#include <stdint.h>\n#include <sys/socket.h>\n")
    for _, needed in ipairs(NEEDS[header] or {}) do f:write("#include <", needed, ">\n") end
    f:write("#include <", header, ">\n")
    for _, c in ipairs(by_header[header]) do
      local value = c.c or c.name
      f:write(("_Static_assert((long long)(%s) == (%s) || (unsigned)(%s) == (%s), \"%s\");\n"):format(
        value, c.linux, value, c.linux, c.name))
    end
    f:close()
    local p <close> = assert(io.popen(("LC_ALL=C %s -fsyntax-only %s -w -x c %s 2>&1"):format(cc,
      cc:find("clang", 1, true) and "-ferror-limit=0" or "", name)))
    local bad, unknown = {}, {}
    for line in p:lines() do
      local differs = line:match("static.assertion failed.-\"([%w_]+)\"")
      local missing = line:match("'([%w_]+)' undeclared") or line:match("undeclared identifier '([%w_]+)'")
      local absent = line:match("fatal error: .*")
      if differs then bad[#bad + 1] = differs end
      if missing and missing ~= unknown[#unknown] then unknown[#unknown + 1] = missing end
      if absent then unknown[#unknown + 1] = absent end
    end
    os.remove(name)
    wrong = wrong + #bad
    print(("%-28s %3d values, %d wrong, not known here: %s"):format(header, #by_header[header], #bad,
      #unknown > 0 and table.concat(unknown, " ") or "none"))
    for _, n in ipairs(bad) do print("  WRONG: " .. n) end
  end
  return wrong == 0
end

---------------------------------------------------------------------------------------------------

local function read_file(name)
  local f <close> = io.open(root .. name, "rb")
  return f and f:read("a")
end

local function main()
  local mode = arg[1]
  local groups = read_list()
  if mode == "--verify" then return verify(groups, arg[2] or "cc") end
  if mode and mode ~= "--check" then
    io.stderr:write("usage: lua5.4 tools/genconst.lua [--check | --verify [cc]]\n")
    return false
  end
  local fresh = true
  for _, product in ipairs {{"lsocket_const.inc", emit_c}, {"docs/reference/constants.md", emit_md}} do
    local name, text = product[1], product[2](groups)
    if mode == "--check" then
      if read_file(name) ~= text then
        io.stderr:write(name, " is out of date: run lua5.4 tools/genconst.lua\n")
        fresh = false
      end
    else
      local f <close> = assert(io.open(root .. name, "wb"))
      assert(f:write(text))
    end
  end
  return fresh
end

local ok, result = pcall(main)
if not ok then io.stderr:write("genconst: ", tostring(result), "\n") end
os.exit(ok and result, true)
