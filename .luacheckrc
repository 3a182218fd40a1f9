std = "lua54"
max_line_length = 120
include_files = {
  "*.lua", "socket/**/*.lua", "spec/**/*.lua", "examples/**/*.lua", "tools/**/*.lua", "bench/**/*.lua",
  "*.rockspec", ".busted", ".luacheckrc",
}
files["spec/**/*_spec.lua"].std = "+busted"
files["spec/run.lua"].globals = {"arg"} -- rewritten for busted
files["*.rockspec"].std = "rockspec"
files[".luacheckrc"].std = "luacheckrc"
