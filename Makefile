# Builds the native libraries into build/.
#
#   make            the CPU twin: build/libairkern_cpu.so
#   make sanitize   the same under AddressSanitizer and UBSan: build/sanitize/libairkern_cpu.so
#   make cuda       the CUDA library, where nvcc 13 is: build/libairkern.so
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
$(BUILD)/libairkern_cpu.so: $(OBJECT_FILES) cuda/exports.map
	$(CXX) -shared -pthread -Wl,--version-script=cuda/exports.map -Wl,-Bsymbolic -Wl,--no-undefined $(LDFLAGS) -o $@.partial $(OBJECT_FILES)
	mv $@.partial $@

$(OBJECTS)/%.o: cpu/%.cpp $(HEADERS) Makefile
	@mkdir -p $(dir $@)
	$(CXX) $(FLAGS) $(CXXFLAGS) $(call isa_flags,$<) -c -o $@ $<

sanitize:
	$(MAKE) BUILD=build/sanitize CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" LDFLAGS="-fsanitize=address,undefined"

# ---- CUDA
#
# The quantizers and the views of weights are the CPU twin's objects, hidden in each library; all tiers of the emulator share them.
NVCC         ?= $(shell command -v nvcc)
SHARED_CPU   := context_core formats isa kernels exact fast integer memory_info quantize thread_pool tiles train
SHARED_FILES := $(filter $(SHARED_CPU:%=cpu/%%),$(SOURCES))
SHARED_BUILD := build/objects
SHARED_OBJECTS := $(patsubst cpu/%.cpp,$(SHARED_BUILD)/%.o,$(SHARED_FILES))
ifneq ($(OBJECTS),$(SHARED_BUILD))
$(SHARED_OBJECTS): $(SHARED_BUILD)/%.o: cpu/%.cpp $(HEADERS) Makefile
	@mkdir -p $(dir $@)
	$(CXX) $(FLAGS) $(CXXFLAGS) $(call isa_flags,$<) -c -o $@ $<
endif

CUDA_ARCHITECTURES ?= 75 80 86 89 90 100 120
CUDA_SOURCES := $(wildcard cuda/*.cu)
CUDA_OBJECTS := $(patsubst cuda/%.cu,$(OBJECTS)/nvcc/%.o,$(CUDA_SOURCES))
# PTX for all others from this one on: the driver compiles it.
CUDA_PTX     ?= 90
CUDA_CODE    := $(foreach a,$(CUDA_ARCHITECTURES),-gencode arch=compute_$(a),code=sm_$(a)) \
                -gencode arch=compute_$(CUDA_PTX),code=compute_$(CUDA_PTX)
NVCC_FLAGS   := -std=c++17 -O3 -Icuda -cudart static -Xfatbin -compress-all -Werror all-warnings -Xptxas -v,-warn-spills \
                -Xcompiler -fPIC,-fvisibility=hidden,-pthread,-Wall,-Wextra

.PHONY: cuda
ifeq ($(NVCC),)
cuda:
	@echo "skipped build/libairkern.so: nvcc is not on the PATH (CUDA 13 has it)"
else
cuda: $(BUILD)/libairkern.so

$(BUILD)/libairkern.so: $(CUDA_OBJECTS) $(SHARED_OBJECTS) cuda/exports.map
	$(NVCC) -shared -cudart static -Xcompiler -pthread,-static-libstdc++ \
	  -Xlinker -Bsymbolic,--no-undefined,--exclude-libs,ALL,--version-script=cuda/exports.map -o $@.partial $(CUDA_OBJECTS) $(SHARED_OBJECTS)
	mv $@.partial $@

# ptxas only warns where registers spill to memory; here that is an error. It fails by itself where shared memory does not suffice.
$(OBJECTS)/nvcc/%.o: cuda/%.cu $(HEADERS) $(wildcard cuda/*.h) Makefile
	@mkdir -p $(dir $@)
	@echo "$(NVCC) cuda/$*.cu"
	@$(NVCC) $(NVCC_FLAGS) $(CUDA_CODE) -c -o $@.partial $< >$@.log 2>&1 || { cat $@.log; exit 1; }
	@! grep -E "warning|[1-9][0-9]* bytes spill" $@.log || { echo "cuda/$*.cu: registers spill, see $@.log"; exit 1; }
	@mv $@.partial $@
endif

-include tests/emulator/emulator.mk

clean:
	rm -rf build
