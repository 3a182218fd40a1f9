# Build, test and install `socket` for Lua 5.4. GNU make; `make help` lists the targets.
#
# What may be set on the command line: CC CFLAGS LDFLAGS LUA LUA_CFLAGS LUA_LIBS LUA_VERSION
# PREFIX DESTDIR INST_LIBDIR INST_LUADIR INST_INCDIR SEED (order of the specs) SPEC (what to run).

LUA_VERSION = 5.4
LUA         = lua$(LUA_VERSION)
WERROR      =
SEED        =
SPEC        = spec

PREFIX      = /usr/local
INST_LIBDIR = $(PREFIX)/lib/lua/$(LUA_VERSION)
INST_LUADIR = $(PREFIX)/share/lua/$(LUA_VERSION)
INST_INCDIR = $(PREFIX)/include
INSTALL     = install

# Another build of the same sources is another pair of these: see `variant` below.
BUILD = build
SO    = socket.so
TLS   = $(dir $(SO))socket/ssl.so

# Lua's headers, asked of pkg-config once and only when something is compiled.
LUA_PC = $(or $(eval LUA_PC := $(shell for p in lua$(LUA_VERSION) lua-$(LUA_VERSION) \
	lua$(subst .,,$(LUA_VERSION)) lua; do \
	pkg-config --exists "$$p >= $(LUA_VERSION)" 2>/dev/null && { echo $$p; break; }; done))$(LUA_PC),\
	$(error no headers of Lua $(LUA_VERSION) found: `sh tools/bootstrap.sh build` installs them; or set LUA_CFLAGS))
ifndef LUA_CFLAGS
LUA_CFLAGS = $(eval LUA_CFLAGS := $(shell pkg-config --cflags $(LUA_PC)))$(LUA_CFLAGS)
endif
ifndef LUA_LIBS
LUA_LIBS = $(eval LUA_LIBS := $(shell pkg-config --libs $(LUA_PC)))$(LUA_LIBS)
endif

WARN = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wold-style-definition -Wundef -Wvla -Wformat=2 -Wwrite-strings -Wpointer-arith \
	-Wimplicit-fallthrough
LIBS = -pthread -lm
OS := $(shell uname -s)
ifeq ($(OS),Darwin)
LIBFLAG = -bundle -undefined dynamic_lookup
else
LIBFLAG = -shared
endif
ifeq ($(OS),Linux)
# Code and constants share a segment, which saves a page-sized gap. Lua loads libraries with RTLD_NOW in any case: with
# -z now the table of functions is read-only from then on.
LIBFLAG += -Wl,-z,nodelete -Wl,-z,noseparate-code -Wl,-z,now
LIBS += -ldl
endif

# Without CFLAGS from outside, what a program does all the time is compiled for speed and the rest of the core for size
# (docs/decisions.md). Without UNWIND=yes socket.so has no tables for unwinding the stack, which debuggers take from -g
# and only a Lua compiled as C++ needs besides: it throws through the library. Objects for host programs have them.
HOT = lsocket_io lsocket_wait
UNWIND = no
NO_UNWIND = $(if $(filter yes,$(UNWIND)),,-fno-asynchronous-unwind-tables)
ifeq ($(origin CFLAGS),undefined)
CFLAGS = -O2
FAST = -O2 -fno-plt $(if $(filter gcc,$(KIND)),-falign-functions=1 -falign-jumps=1 -falign-loops=1)
SPEED = $(if $(filter lsocket_ssl% lsocket_x509,$(*F)),-O2,$(if $(filter $(HOT),$(*F)),$(FAST),$(SMALL)))
$(BUILD)/%.o: CFLAGS = $(SPEED) $(if $(filter lsocket_ssl% lsocket_x509,$(*F)),,$(NO_UNWIND))
$(BUILD)/host/%.o: CFLAGS = $(SPEED)
# What the compiler and the C library are. Relocations in a short form want a new one of these (ld(1)), and gcc -Os saves
# registers around calls that are smaller saved once (700 bytes). What is fast is not aligned (700 bytes).
KIND := $(shell printf '\043include <limits.h>\n__GLIBC__ __GLIBC_MINOR__ __GNUC__ __clang__\n' | $(CC) -E -P -x c - 2>/dev/null | \
	awk 'END { if ($$1 == 2 && $$2 >= 36) print "relr"; if ($$3 + 0 && $$4 == "__clang__") print "gcc" }')
SMALL = -Os $(if $(filter gcc,$(KIND)),-fno-caller-saves)
ifneq ($(filter relr,$(KIND)),)
RELR := $(shell $(CC) -Wl,--help 2>/dev/null | sed -n 's/.*-z \(pack-relative-relocs\).*/-Wl,-z,\1/p;T;q')
endif
endif

# The core is every lsocket*.c but those of the TLS library and of Windows.
SRC := $(sort $(filter-out lsocket_win.c $(wildcard lsocket_ssl*.c lsocket_x509*.c),$(wildcard lsocket*.c)))
OBJ  = $(SRC:%.c=$(BUILD)/%.o)

# socket/ssl.so, made where OpenSSL 3's headers are.
TLS_SRC := $(sort $(wildcard lsocket_ssl*.c lsocket_x509*.c))
TLS_OBJ  = $(TLS_SRC:%.c=$(BUILD)/%.o)
TLS_CFLAGS := $(shell pkg-config --cflags 'openssl >= 3.0' 2>/dev/null)
TLS_LIBS   := $(shell pkg-config --libs 'openssl >= 3.0' 2>/dev/null)
WITH_TLS    = yes
HAVE_TLS    = $(if $(TLS_LIBS),$(filter yes,$(WITH_TLS)))
CPPFLAGS   += $(TLS_CFLAGS)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: static shared pc install-host spec-hosts embed-example all tls demo test check bench coverage sanitize tsan helgrind valgrind format install \
	uninstall clean help kqueue specs objects host allocfail allocfail-host asan-lua fuzz fuzz-tls fuzz-reentry core-sources core-flags FORCE m32 m32-all m32-odd m32-even \
	apicheck
# A person's own Lua settings must not reach the specs.
unexport LUA_PATH_5_4 LUA_CPATH_5_4 LUA_INIT LUA_INIT_5_4

all: $(SO) tls ## build socket.so and socket/ssl.so (the default)
	@:

ifeq ($(HAVE_TLS),yes)
tls: $(TLS)
	@:
else
tls:
	@echo 'socket/ssl.so is not built: OpenSSL 3 is not installed (on Debian: libssl-dev)'
endif

# What objects are made with: the compiler, flags, and which of the headers are there that sources ask for by
# __has_include. The file changes when that changes, and everything is made anew. Headers that objects were made with
# are their prerequisites, the system's too. `make install` takes what was built, whatever its own flags.
WITH := $(CFLAGS) $(CPPFLAGS)
WITH_FILE = $(BUILD)/with
ASKED_FOR = cat *.c *.h | grep -o '__has_include(<[^>]*>)' | sort -u | \
	sed 's/__has_include(<\(.*\)>)/\#if &\n"\1"\n\#endif/'
$(WITH_FILE): FORCE
	@mkdir -p $(@D)
	@new=$@.$$$$; { $(CC) --version | head -n 1; printf '%s\n' '$(CC) $(WARN) $(WERROR) $(WITH) $(LUA_CFLAGS)' \
		'$(UNWIND) $(LDFLAGS) $(TLS_LIBS)'; $(ASKED_FOR) | $(CC) $(LUA_CFLAGS) $(WITH) -E -P -x c - | grep '^"'; } >$$new; \
	if cmp -s $$new $@; then rm $$new; else mv $$new $@; fi
FORCE:
ifeq ($(filter-out install install-host,$(or $(MAKECMDGOALS),all)),)
WITH_FILE =
endif

$(TLS): $(TLS_OBJ) $(WITH_FILE)
	@mkdir -p $(@D)
	$(CC) $(LIBFLAG) $(CFLAGS) $(LDFLAGS) -o $@ $(TLS_OBJ) $(TLS_LIBS)

$(SO): $(OBJ) $(WITH_FILE)
	$(CC) $(LIBFLAG) $(CFLAGS) $(RELR) $(LDFLAGS) -o $@ $(OBJ) $(LIBS)

define COMPILE
@mkdir -p $(@D)
$(CC) -std=c11 $(WARN) $(WERROR) $(CFLAGS) -fPIC -fvisibility=hidden -pthread -MD -MP \
	$(LUA_CFLAGS) $(CPPFLAGS) -c -o $@ $<
endef
$(BUILD)/%.o: %.c Makefile $(WITH_FILE)
	$(COMPILE)
$(BUILD)/host/%.o: %.c Makefile $(WITH_FILE)
	$(COMPILE)

$(BUILD)/lsocket_lua.c: tools/embedlua.lua $(wildcard socket/*.lua)
	@mkdir -p $(@D)
	$(LUA) tools/embedlua.lua >$@
$(BUILD)/host/lsocket_lua.o: CPPFLAGS += -I.
$(BUILD)/host/lsocket_lua.o: $(BUILD)/lsocket_lua.c Makefile $(WITH_FILE)
	$(COMPILE)

objects: $(OBJ) $(if $(HAVE_TLS),$(TLS_OBJ))

# For host programs: one archive, from which a host that never names luaopen_socket_ssl takes nothing of TLS; the same as
# a shared library; and what pkg-config says of both.
STATIC = $(BUILD)/liblsocket.a
SHARED = $(BUILD)/liblsocket.so
SONAME = liblsocket.so.0
# They have tables for unwinding, whatever UNWIND says, and the modules written in Lua.
HOST_OBJ = $(patsubst $(BUILD)/%,$(BUILD)/host/%,$(OBJ) $(if $(HAVE_TLS),$(TLS_OBJ))) $(BUILD)/host/lsocket_lua.o

static: $(STATIC) pc ## build/liblsocket.a, for programs that have Lua in them (WITH_TLS=no: without TLS)
shared: $(SHARED) pc ## the same as a shared library

$(STATIC): $(HOST_OBJ)
	@rm -f $@
	$(AR) rcs $@ $(HOST_OBJ)

$(SHARED): $(HOST_OBJ)
	$(CC) $(LIBFLAG) -Wl,-soname,$(SONAME) $(CFLAGS) $(LDFLAGS) -o $@ $(HOST_OBJ) $(if $(HAVE_TLS),$(TLS_LIBS)) $(LIBS)
	ln -sf $(notdir $@) $(BUILD)/$(SONAME)

VERSION = $(shell sed -n 's/^.define LSOCKET_VERSION "\(.*\)"/\1/p' lsocket.h)
INST_LIB = $(PREFIX)/lib
define PC
prefix=$(PREFIX)
libdir=$(INST_LIB)
includedir=$(INST_INCDIR)

Name: lsocket
Description: Python's socket module for Lua $(LUA_VERSION), for programs that have Lua in them
Version: $(VERSION)
Cflags: -I$${includedir}
Libs: -L$${libdir} -llsocket $(LIBS)
endef
define PC_TLS
prefix=$(PREFIX)

Name: lsocket-ssl
Description: lsocket and what its TLS needs
Version: $(VERSION)
Requires: lsocket openssl >= 3.0
endef
export PC PC_TLS
pc:
	@mkdir -p $(BUILD)
	@printf '%s\n' "$$PC" >$(BUILD)/lsocket.pc
	@$(if $(HAVE_TLS),printf '%s\n' "$$PC_TLS" >$(BUILD)/lsocket-ssl.pc,:)

install-host: static shared ## install the library for host programs: archive, shared library, header, pkg-config
	$(INSTALL) -d '$(DESTDIR)$(INST_LIB)/pkgconfig' '$(DESTDIR)$(INST_INCDIR)'
	$(INSTALL) -m 644 lsocket.h '$(DESTDIR)$(INST_INCDIR)/lsocket.h'
	$(INSTALL) -m 644 $(STATIC) '$(DESTDIR)$(INST_LIB)/liblsocket.a'
	$(INSTALL) -m 755 $(SHARED) '$(DESTDIR)$(INST_LIB)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(INST_LIB)/liblsocket.so'
	$(INSTALL) -m 644 $(BUILD)/lsocket*.pc '$(DESTDIR)$(INST_LIB)/pkgconfig/'

# Host programs of the specs: of spec/policy_spec.lua and spec/host_spec.lua, and one with a Lua that is too old.
spec-hosts: $(BUILD)/spechost $(BUILD)/oldlua embed-example
$(BUILD)/spechost: spec/host/spechost.c $(STATIC)
	$(CC) -std=c11 $(WARN) $(WERROR) $(CFLAGS) $(LDFLAGS) -pthread $(LUA_CFLAGS) -I. $(if $(HAVE_TLS),-DSPECHOST_TLS) \
		-o $@ $< $(STATIC) $(if $(HAVE_TLS),$(TLS_LIBS)) $(LUA_LIBS) $(LIBS)

$(BUILD)/oldlua: spec/host/oldlua.c $(STATIC)
	$(CC) -std=c11 $(WARN) $(WERROR) $(CFLAGS) $(LDFLAGS) -pthread $(LUA_CFLAGS) -I. -o $@ $< $(STATIC) $(LUA_LIBS) $(LIBS)

embed-example: $(BUILD)/game ## build/game, the host program of examples/embed
$(BUILD)/game: examples/embed/game.c lsocket.h $(STATIC)
	$(CC) -std=c11 $(WARN) $(WERROR) $(CFLAGS) $(LDFLAGS) -pthread $(LUA_CFLAGS) -I. -o $@ $< $(STATIC) $(LUA_LIBS) $(LIBS)

-include $(OBJ:.o=.d) $(TLS_OBJ:.o=.d) $(HOST_OBJ:.o=.d)

quiet     = $(MAKE) --no-print-directory
bootstrap = @LUA='$(LUA)' CC='$(CC)' sh tools/bootstrap.sh

demo: ## build, then show the library at work (installs what is missing)
	$(bootstrap) build demo
	@$(quiet) all embed-example
	@LUA='$(LUA)' sh tools/demo.sh

test: ## run every spec under Lua 5.4, in random order (SEED=n repeats one order, SPEC=path runs one)
	$(bootstrap) build test
	@$(quiet) all spec-hosts
	@$(quiet) specs

check: ## everything a change must pass besides `test`: warnings, analysers, rock, sanitizers
	$(bootstrap) build test check
	@MAKE='$(MAKE)' LUA='$(LUA)' sh tools/check.sh

bench: ## measure beside plain C, LuaSocket and Python
	$(bootstrap) build bench
	@$(quiet) all
	@sh bench/run.sh

# The specs with the library $(SO), which need not be the one in this folder. Child processes
# find the same one: through the two paths, or through spec/helper.lua.
specs:
	@LSOCKET_SO='$(abspath $(SO))' LUA_PATH='$(CURDIR)/?.lua;;' \
	LUA_CPATH='$(dir $(abspath $(SO)))?.so;;' \
	LSOCKET_LUA='$(or $(SPEC_LUA),$(LUA))' SEED='$(SEED)' \
	$(or $(SPEC_LUA),$(LUA)) spec/run.lua $(SPEC)

# $(call variant,name,compiler,flags): a second build, in build/name.
variant = $(quiet) BUILD=build/$(1) SO=build/$(1)/socket.so CC='$(2)' CFLAGS='$(3)'

coverage: ## lines of the C sources the specs run; fails below 90 %
	$(bootstrap) build test coverage
	@rm -rf build/cov
	@$(call variant,cov,gcc,-O0 -g -DLSOCK_CHECKED --coverage -fprofile-abs-path -fprofile-update=atomic) -s all spec-hosts
	@$(call variant,cov) specs; specs=$$?; \
	gcovr --root . --filter '(.*/)?lsocket[a-z0-9_]*\.c$$' --fail-under-line 90 build/cov && exit $$specs

# With LSOCK_CHECKED the driver looks at what every attempt leaves on the Lua stack.
ASAN = -O1 -g -DLSOCK_CHECKED -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
asan-lua: # a Lua that runs with the sanitizers' library in it
	$(bootstrap) build test
	@$(call variant,asan,gcc,$(ASAN)) -s all spec-hosts
	@gcc -shared -fPIC -o build/asan/unpreload.so spec/host/unpreload.c
	@printf '#!/bin/sh\nexec env LD_PRELOAD="%s %s" %s "$$@"\n' \
		"$$(realpath "$$(gcc -print-file-name=libasan.so)")" '$(CURDIR)/build/asan/unpreload.so' \
		'$(LUA)' >build/asan/lua && chmod +x build/asan/lua

sanitize: asan-lua ## run the specs once under AddressSanitizer and UBSan
	@ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LSAN_OPTIONS='suppressions=$(CURDIR)/spec/host/lsan.txt:print_suppressions=0' \
	LSOCKET_SANITIZED=1 $(call variant,asan) SPEC_LUA='$(CURDIR)/build/asan/lua' specs

# With pointers of 32 bits: Debian's packages for i386, unpacked into build/i386. pkg-config finds those.
I386 = $(CURDIR)/build/i386/root/usr
m32 = PKG_CONFIG_LIBDIR='$(I386)/lib/i386-linux-gnu/pkgconfig' PKG_CONFIG_SYSROOT_DIR='$(I386:/usr=)' \
	$(call variant,m32,gcc -m32 -idirafter /usr/include/$(shell gcc -print-multiarch) -I$(I386)/include \
	-I$(I386)/include/i386-linux-gnu -L$(I386)/lib/i386-linux-gnu,-O1 -g -DLSOCK_CHECKED)
m32: ## run the specs with 32-bit pointers
	$(bootstrap) build test m32
	@$(m32) -s -j2 all spec-hosts
	@ln -sf $(I386)/lib/i386-linux-gnu/lua/5.4/lfs.so build/m32/
	@$(quiet) -j2 -Otarget $(if $(filter command,$(origin SPEC)),m32-all,m32-odd m32-even)
m32-all m32-odd m32-even: # in two processes, as specs wait most of the time
	@$(m32) SPEC_LUA='$(CURDIR)/build/i386/lua' SPEC='$(if $(filter m32-all,$@),$(SPEC),$(shell printf '%s\n' \
		$(wildcard spec/*_spec.lua spec/regress/*_spec.lua) | awk 'NR % 2 == $(if $(filter m32-odd,$@),1,0)'))' specs

# With a Lua that checks how C code uses it, where the usual one crashes later or not at all.
CHECKED = build/lua-source/lua/src
API_SPEC = spec/regress spec/io_spec.lua spec/file_spec.lua spec/connect_spec.lua spec/resolve_spec.lua spec/msg_spec.lua \
	spec/buf_spec.lua spec/select_spec.lua spec/loop_spec.lua spec/reactor_spec.lua spec/task_spec.lua spec/wait_hook_spec.lua \
	spec/server_spec.lua spec/sslsock_spec.lua spec/sslctx_spec.lua spec/x509_spec.lua spec/err_spec.lua spec/addr_spec.lua
apicheck: ## run specs of each area with a Lua that checks how its functions are called
	$(bootstrap) build test apicheck
	@test -x $(CHECKED)/lua || { cd $(CHECKED) && ls *.c | grep -v luac.c | xargs -P 4 -n 6 \
		gcc -O1 -DLUA_USE_LINUX -DLUA_USE_APICHECK -DLUAI_ASSERT -c && ar rcs liblua.a l[!u]*.o lu[!a]*.o && \
		gcc -o lua *.o -Wl,-E -lm -ldl; }
	@$(call variant,api,gcc,-O1 -g -DLSOCK_CHECKED) LUA_CFLAGS='-I$(CURDIR)/$(CHECKED)' LUA_LIBS='-Wl,-z,muldefs $(CURDIR)/$(CHECKED)/liblua.a' -s -j2 \
		all spec-hosts
	@$(call variant,api) SPEC_LUA='$(CURDIR)/$(CHECKED)/lua' SPEC='$(API_SPEC)' specs

# As root: each seed runs in a network namespace of its own. See spec/host/fuzz.lua.
FIRST = 1
SEEDS = 20
fuzz: asan-lua ## random calls with random arguments, under ASan and UBSan (FIRST=n SEEDS=n)
	@ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=300 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LUA_PATH='$(CURDIR)/?.lua;;' LUA_CPATH='$(CURDIR)/build/asan/?.so;;' \
	LSOCKET_LUA='$(CURDIR)/build/asan/lua' $(LUA) spec/host/fuzz.lua $(FIRST) $(SEEDS)

fuzz-tls: asan-lua ## TLS peers that do what none should, under ASan and UBSan (FIRST=n SEEDS=n)
	@ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=300 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LUA_PATH='$(CURDIR)/?.lua;;' LUA_CPATH='$(CURDIR)/build/asan/?.so;;' \
	LSOCKET_LUA='$(CURDIR)/build/asan/lua' $(LUA) spec/host/fuzz_tls.lua $(FIRST) $(SEEDS)

fuzz-reentry: asan-lua ## calls into the library from every callback and finalizer, under ASan and UBSan (FIRST=n SEEDS=n)
	@ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=300 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LUA_PATH='$(CURDIR)/?.lua;;' LUA_CPATH='$(CURDIR)/build/asan/?.so;;' \
	LSOCKET_LUA='$(CURDIR)/build/asan/lua' $(LUA) spec/host/fuzz_reentry.lua $(FIRST) $(SEEDS)

# The code for kqueue(2), on a stand-in; see spec/host/kqueue.
KQUEUE_SPEC = spec/select*_spec.lua spec/reactor_spec.lua spec/task_spec.lua spec/poller_spec.lua spec/timer_spec.lua spec/loop*_spec.lua spec/connect*_spec.lua
kqueue: ## specs of what waits for many sockets, with the code for BSD and macOS
	$(bootstrap) build test
	@mkdir -p build/kqueue
	@$(CC) -O1 -g -fPIC -Ispec/host/kqueue -c -o build/kqueue/kqueue.o spec/host/kqueue/kqueue.c
	@$(quiet) BUILD=build/kqueue SO=build/kqueue/socket.so CPPFLAGS='-DLSOCK_CHECKED -DLSOCK_USE_KQUEUE -Ispec/host/kqueue' \
		LDFLAGS='$(LDFLAGS) build/kqueue/kqueue.o' -s all
	@$(quiet) SO=build/kqueue/socket.so SPEC='$(wildcard $(KQUEUE_SPEC))' specs

# Two Lua states in two threads; see spec/host/tsan_states.c.
STATES = spec/host/tsan_states.c
SECONDS_EACH = 2
host: $(OBJ)
	$(CC) -std=c11 $(WARN) $(WERROR) $(CFLAGS) -pthread $(LUA_CFLAGS) -I. -o $(BUILD)/states $(STATES) \
		$(OBJ) $(LUA_LIBS) $(LIBS)

# Every allocation failing; see spec/host/allocfail.c. EVERY=10 tries each tenth.
EVERY = 1
allocfail-host: $(OBJ) $(if $(HAVE_TLS),$(TLS_OBJ))
	$(CC) -std=c11 $(WARN) $(WERROR) $(CFLAGS) -pthread $(LUA_CFLAGS) -I. -o $(BUILD)/allocfail \
		spec/host/allocfail.c $(OBJ) $(if $(HAVE_TLS),$(TLS_OBJ) $(TLS_LIBS)) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free \
		$(LUA_LIBS) $(LIBS)

allocfail: ## every allocation of a script failing in turn, under ASan and UBSan (EVERY=n: each n-th)
	$(bootstrap) build test
	@$(call variant,asan,gcc,$(ASAN)) -s allocfail-host
	@UBSAN_OPTIONS=print_stacktrace=1 build/asan/allocfail spec/host/representative.lua $(EVERY)
	@UBSAN_OPTIONS=print_stacktrace=1 build/asan/allocfail -p spec/host/representative_loop.lua $(EVERY)
ifeq ($(HAVE_TLS),yes)
	@mkdir -p build/asan/certs && sh bench/tls_certs.sh build/asan/certs 'ec -pkeyopt ec_paramgen_curve:prime256v1'
	@CERTS=build/asan/certs UBSAN_OPTIONS=print_stacktrace=1 \
		build/asan/allocfail spec/host/representative_tls.lua $(EVERY)
endif

tsan: ## two Lua states in two threads, under ThreadSanitizer
	$(bootstrap) build test
	@$(call variant,tsan,gcc,-O1 -g -fsanitize=thread) -s host
	@if setarch -R true 2>/dev/null; then fixed='setarch -R'; else fixed=; fi; \
	TSAN_OPTIONS=halt_on_error=1:exitcode=66:second_deadlock_stack=1 \
	$$fixed build/tsan/states spec/host/workload.lua $(SECONDS_EACH)

helgrind: ## the same under valgrind's helgrind
	$(bootstrap) build test valgrind
	@$(call variant,host,gcc,-O1 -g) -s host
	@valgrind -q --tool=helgrind --error-exitcode=66 --fair-sched=yes \
		build/host/states spec/host/workload.lua $(SECONDS_EACH)

valgrind: ## the same under valgrind's memcheck
	$(bootstrap) build test valgrind
	@$(call variant,host,gcc,-O1 -g) -s host
	@valgrind -q --leak-check=full --keep-debuginfo=yes --error-exitcode=99 --fair-sched=yes \
		build/host/states spec/host/workload.lua $(SECONDS_EACH)

format: ## lay out the C sources as .clang-format says
	clang-format -i $(wildcard lsocket*.[ch] examples/embed/*.c spec/host/*.c)

install: all ## install (PREFIX, DESTDIR, LUA_VERSION)
	$(INSTALL) -d '$(DESTDIR)$(INST_LIBDIR)' '$(DESTDIR)$(INST_LUADIR)' '$(DESTDIR)$(INST_INCDIR)'
	$(INSTALL) -m 755 $(SO) '$(DESTDIR)$(INST_LIBDIR)/socket.so'
	@if [ -e '$(TLS)' ]; then set -ex; $(INSTALL) -d '$(DESTDIR)$(INST_LIBDIR)/socket'; \
		$(INSTALL) -m 755 $(TLS) '$(DESTDIR)$(INST_LIBDIR)/socket/ssl.so'; fi
	$(INSTALL) -m 644 socket.lua '$(DESTDIR)$(INST_LUADIR)/socket.lua'
	$(INSTALL) -m 644 lsocket.h '$(DESTDIR)$(INST_INCDIR)/lsocket.h'
	@set -e; for f in $(wildcard socket/*.lua); do \
		$(INSTALL) -d '$(DESTDIR)$(INST_LUADIR)/socket'; \
		$(INSTALL) -m 644 "$$f" '$(DESTDIR)$(INST_LUADIR)/'"$$f"; done

uninstall: ## remove what `install` put there
	rm -f '$(DESTDIR)$(INST_LIBDIR)/socket.so' '$(DESTDIR)$(INST_LUADIR)/socket.lua' \
		'$(DESTDIR)$(INST_INCDIR)/lsocket.h'
	@for f in $(wildcard socket/*.lua); do rm -f '$(DESTDIR)$(INST_LUADIR)/'"$$f"; done
	@rm -f '$(DESTDIR)$(INST_LIBDIR)/socket/ssl.so'
	@rmdir '$(DESTDIR)$(INST_LIBDIR)/socket' '$(DESTDIR)$(INST_LUADIR)/socket' 2>/dev/null || true

clean: ## remove what was built
	rm -rf build socket.so socket/ssl.so
	@rmdir socket 2>/dev/null || true

# For tools/check.sh: the sources `all` compiles, and the flags to read them with.
core-sources:
	@echo $(SRC) $(if $(HAVE_TLS),$(TLS_SRC))
core-flags:
	@echo -std=c11 $(LUA_CFLAGS) $(CPPFLAGS)

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
