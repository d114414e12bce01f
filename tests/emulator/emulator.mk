# Builds CUDA sources with g++ to run on the CPU; included by the Makefile. README.md beside this file says what for.
#
#   make emulator        all tiers below
#   make emulator-tier   build/libcudart_emu.so, build/libairkern_emu.so from cuda/*.cu, and the emulator's own fixtures
#     in build/race      the same with every memory access of the kernels checked
#     in build/sanitize  the same under AddressSanitizer and UBSan
#   make emulator-ptx    the fixtures as nvcc's PTX, translated to C++; where nvcc is
#   make emulator-ptx-library    build/libairkern_ptx.so: the library in the same way, which takes minutes

EMU         := tests/emulator
EMU_INCLUDE := -I$(EMU)/include -Icuda
EMU_FLAGS   := -std=c++17 -O2 -g -march=native -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(WARNINGS)
EMU_KERNEL  := -x c++ -Wno-unknown-pragmas -fno-strict-aliasing
EMU_LINK    := -pthread -Wl,-rpath,'$$ORIGIN:$$ORIGIN/..' -Wl,-z,defs
EMU_RUNTIME_FLAGS ?=
EMU_KERNEL_FLAGS  ?=
EMU_LINK_FLAGS    ?=
EMU_HEADERS := $(wildcard $(EMU)/include/*.h $(EMU)/include/emu/*.h $(EMU)/runtime/*.h $(EMU)/fixtures/*.h cuda/*.h)

EMU_RUNTIME  := $(patsubst $(EMU)/runtime/%.cpp,$(OBJECTS)/emulator/%.o,$(wildcard $(EMU)/runtime/*.cpp))
EMU_KERNELS  := $(patsubst cuda/%.cu,$(OBJECTS)/cuda/%.o,$(wildcard cuda/*.cu))
EMU_PROGRAMS := faults pipeline
EMU_FIXTURES := $(filter-out $(EMU_PROGRAMS),$(patsubst $(EMU)/fixtures/%.cu,%,$(wildcard $(EMU)/fixtures/*.cu)))
EMU_PRODUCTS := libcudart_emu.so $(if $(EMU_KERNELS),libairkern_emu.so) emulator/libfixtures.so $(EMU_PROGRAMS:%=emulator/%)

.PHONY: emulator emulator-tier emulator-ptx emulator-ptx-library
emulator: emulator-tier
	+$(MAKE) emulator-tier BUILD=build/race EMU_RUNTIME_FLAGS=-DEMU_RACE EMU_KERNEL_FLAGS=-fsanitize=thread
	+$(MAKE) emulator-tier BUILD=build/sanitize EMU_RUNTIME_FLAGS="$(EMU_SANITIZE)" EMU_KERNEL_FLAGS="$(EMU_SANITIZE)" EMU_LINK_FLAGS="$(EMU_SANITIZE)"
	+$(if $(NVCC),$(MAKE) emulator-ptx,@echo "emulator-ptx skipped: nvcc is not installed")

EMU_SANITIZE := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
emulator-tier: $(EMU_PRODUCTS:%=$(BUILD)/%)

$(OBJECTS)/emulator/%.o: $(EMU)/runtime/%.cpp $(EMU_HEADERS) $(EMU)/emulator.mk
	@mkdir -p $(dir $@)
	$(CXX) $(EMU_FLAGS) $(EMU_INCLUDE) $(EMU_RUNTIME_FLAGS) -c -o $@ $<

# Never unloaded: its worker threads wait for work until the process ends.
$(BUILD)/libcudart_emu.so: $(EMU_RUNTIME)
	$(CXX) -shared $(EMU_LINK) -Wl,-z,nodelete $(EMU_LINK_FLAGS) -o $@.partial $^ -ldl
	mv $@.partial $@

$(OBJECTS)/cuda/%.o: cuda/%.cu $(EMU_HEADERS) $(EMU)/emulator.mk
	@mkdir -p $(dir $@)
	$(CXX) $(EMU_FLAGS) $(EMU_INCLUDE) $(EMU_KERNEL_FLAGS) $(EMU_KERNEL) -c -o $@ $<

$(OBJECTS)/fixtures/%.o: $(EMU)/fixtures/%.cu $(EMU_HEADERS) $(EMU)/emulator.mk
	@mkdir -p $(dir $@)
	$(CXX) $(EMU_FLAGS) $(EMU_INCLUDE) $(EMU_KERNEL_FLAGS) $(EMU_KERNEL) -c -o $@ $<

$(BUILD)/libairkern_emu.so: $(EMU_KERNELS) $(SHARED_OBJECTS) $(BUILD)/libcudart_emu.so cuda/exports.map
	$(CXX) -shared $(EMU_LINK) -Wl,--version-script=cuda/exports.map $(EMU_LINK_FLAGS) -Wl,-Bsymbolic -o $@.partial $(EMU_KERNELS) $(SHARED_OBJECTS) -L$(BUILD) -lcudart_emu
	mv $@.partial $@

$(BUILD)/emulator/libfixtures.so: $(EMU_FIXTURES:%=$(OBJECTS)/fixtures/%.o) $(BUILD)/libcudart_emu.so
	@mkdir -p $(dir $@)
	$(CXX) -shared $(EMU_LINK) $(EMU_LINK_FLAGS) -o $@ $(EMU_FIXTURES:%=$(OBJECTS)/fixtures/%.o) -L$(BUILD) -lcudart_emu

$(BUILD)/emulator/%: $(OBJECTS)/fixtures/%.o $(BUILD)/libcudart_emu.so
	@mkdir -p $(dir $@)
	$(CXX) $(EMU_LINK) $(EMU_LINK_FLAGS) -o $@ $< -L$(BUILD) -lcudart_emu

# The PTX tier: the kernels are nvcc's PTX in C++, the host code is nvcc's object as it is. The translated kernels come first in
# the link: they must be known when the host code's initializers look for them.
DENO         ?= deno
EMU_PTX_ARCH ?= 86
EMU_PTX_SOURCES := $(wildcard $(EMU)/ptx/*.ts)
EMU_NVCC     := -O3 -std=c++17 -Icuda -Xcompiler -fPIC,-fvisibility=hidden
ptx_objects = $(foreach source,$(1),$(OBJECTS)/ptx/$(source).kernels.o) $(foreach source,$(1),$(OBJECTS)/ptx/$(source).host.o) $(OBJECTS)/ptx/ptx_host.o
EMU_PTX_FIXTURES := $(EMU_FIXTURES:%=$(EMU)/fixtures/%)
EMU_PTX_KERNELS  := $(patsubst %.cu,%,$(wildcard cuda/*.cu))

.SECONDARY:
emulator-ptx: $(BUILD)/libcudart_emu.so $(BUILD)/emulator/libfixtures_ptx.so $(EMU_PROGRAMS:%=$(BUILD)/emulator/%_ptx)

emulator-ptx-library: $(if $(NVCC),$(BUILD)/libairkern_ptx.so)
	@$(if $(NVCC),,echo "emulator-ptx-library skipped: nvcc is not installed")

$(OBJECTS)/ptx/%.ptx: %.cu $(EMU_HEADERS)
	@mkdir -p $(dir $@)
	$(NVCC) -O3 -std=c++17 -Icuda -ptx -arch=compute_$(EMU_PTX_ARCH) -o $@ $<

$(OBJECTS)/ptx/%.kernels.cpp: $(OBJECTS)/ptx/%.ptx $(EMU_PTX_SOURCES)
	$(DENO) run -q -R -W $(EMU)/ptx/translate.ts $< $@

# Megabytes of straight code: without debug information, and optimized so far that it compiles in seconds.
$(OBJECTS)/ptx/%.kernels.o: $(OBJECTS)/ptx/%.kernels.cpp $(EMU_HEADERS) $(EMU)/ptx/ptx_device.h
	$(CXX) $(EMU_FLAGS) -O1 -g0 -w $(EMU_INCLUDE) -I$(EMU)/ptx -c -o $@ $<

$(OBJECTS)/ptx/%.host.o: %.cu $(EMU_HEADERS)
	@mkdir -p $(dir $@)
	$(NVCC) $(EMU_NVCC) -arch=sm_$(EMU_PTX_ARCH) -c -o $@ $<

$(OBJECTS)/ptx/ptx_host.o: $(EMU)/ptx/ptx_host.cpp $(EMU)/ptx/ptx_device.h $(EMU_HEADERS)
	@mkdir -p $(dir $@)
	$(CXX) $(EMU_FLAGS) $(EMU_INCLUDE) -I$(EMU)/ptx -c -o $@ $<

$(BUILD)/libairkern_ptx.so: $(call ptx_objects,$(EMU_PTX_KERNELS)) $(SHARED_OBJECTS) $(BUILD)/libcudart_emu.so
	$(CXX) -shared $(EMU_LINK) -Wl,-Bsymbolic -o $@.partial $(call ptx_objects,$(EMU_PTX_KERNELS)) $(SHARED_OBJECTS) -L$(BUILD) -lcudart_emu
	mv $@.partial $@

$(BUILD)/emulator/libfixtures_ptx.so: $(call ptx_objects,$(EMU_PTX_FIXTURES)) $(BUILD)/libcudart_emu.so
	@mkdir -p $(dir $@)
	$(CXX) -shared $(EMU_LINK) -o $@ $(call ptx_objects,$(EMU_PTX_FIXTURES)) -L$(BUILD) -lcudart_emu

$(BUILD)/emulator/%_ptx: $(OBJECTS)/ptx/$(EMU)/fixtures/%.kernels.o $(OBJECTS)/ptx/$(EMU)/fixtures/%.host.o $(OBJECTS)/ptx/ptx_host.o $(BUILD)/libcudart_emu.so
	@mkdir -p $(dir $@)
	$(CXX) $(EMU_LINK) -o $@ $(filter %.o,$^) -L$(BUILD) -lcudart_emu
