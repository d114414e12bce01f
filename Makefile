# Builds the native libraries into build/.
#
#   make            the CPU twin: build/libairkern_cpu.so
#   make sanitize   the same under AddressSanitizer and UBSan: build/sanitize/libairkern_cpu.so
#   make emulator   cuda/*.cu built to run on the CPU, for tests: build/libairkern_emu.so; see tests/emulator/README.md
#   make clean
#
# Files named *_avx2.cpp, *_avx512.cpp and *_amx.cpp are compiled for that instruction set and reached only after the
# processor was asked for it; all others are portable C++17, so that one library serves every x86-64 and other machines.

# One job a processor unless the caller says otherwise.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

CXX      ?= g++
CXXFLAGS ?= -O3
BUILD    ?= build
OBJECTS  := $(BUILD)/objects

WARNINGS := -Wall -Wextra -Werror
FLAGS    := -std=c++17 -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(WARNINGS)

AVX2   := -mavx2 -mfma -mf16c
AVX512 := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
AMX    := $(AVX512) -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8

SOURCES := $(wildcard cpu/*.cpp cpu/*/*.cpp)
HEADERS := cuda/airkern.h $(wildcard cpu/*.h cpu/*/*.h)
ifneq ($(shell $(CXX) -dumpmachine | cut -d- -f1),x86_64)
SOURCES := $(filter-out %_avx2.cpp %_avx512.cpp %_amx.cpp,$(SOURCES))
endif
OBJECT_FILES := $(patsubst cpu/%.cpp,$(OBJECTS)/%.o,$(SOURCES))

isa_flags = $(if $(filter %_avx2.cpp,$(1)),$(AVX2),$(if $(filter %_avx512.cpp,$(1)),$(AVX512),$(if $(filter %_amx.cpp,$(1)),$(AMX))))

.PHONY: all sanitize clean
all: $(BUILD)/libairkern_cpu.so

# -Bsymbolic and a temporary name: a library that looks whole is whole.
$(BUILD)/libairkern_cpu.so: $(OBJECT_FILES)
	$(CXX) -shared -pthread -Wl,-Bsymbolic -Wl,--no-undefined $(LDFLAGS) -o $@.partial $^
	mv $@.partial $@

$(OBJECTS)/%.o: cpu/%.cpp $(HEADERS) Makefile
	@mkdir -p $(dir $@)
	$(CXX) $(FLAGS) $(CXXFLAGS) $(call isa_flags,$<) -c -o $@ $<

sanitize:
	$(MAKE) BUILD=build/sanitize CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" LDFLAGS="-fsanitize=address,undefined"

NVCC ?= $(shell command -v nvcc)
-include tests/emulator/emulator.mk

clean:
	rm -rf build
