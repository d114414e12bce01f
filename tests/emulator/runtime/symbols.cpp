#include "symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace emu {

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr int kSharedVariable = STT_OBJECT;  // see __shared__ in include/emu/device.h
#else
constexpr int kSharedVariable = STT_TLS;
#endif

struct Module {
  const void *address;
  std::string path;
  uintptr_t base = 0;
  size_t tls_module = 0, tls_bytes = 0;
};

int find_module(dl_phdr_info *info, size_t, void *data) {
  Module &wanted = *static_cast<Module *>(data);
  bool holds = false;
  size_t tls_bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto &segment = info->dlpi_phdr[i];
    const uintptr_t offset = reinterpret_cast<uintptr_t>(wanted.address) - info->dlpi_addr - segment.p_vaddr;
    if (segment.p_type == PT_LOAD && offset < segment.p_memsz) holds = true;
    if (segment.p_type == PT_TLS) tls_bytes = segment.p_memsz;
  }
  if (!holds) return 0;
  wanted.path = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : "/proc/self/exe";
  wanted.base = info->dlpi_addr;
  wanted.tls_module = info->dlpi_tls_modid;
  wanted.tls_bytes = tls_bytes;
  return 1;
}

std::vector<char> read_file(const std::string &path) {
  std::vector<char> bytes;
  if (FILE *file = fopen(path.c_str(), "rb")) {
    char buffer[1 << 16];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;) bytes.insert(bytes.end(), buffer, buffer + n);
    fclose(file);
  }
  return bytes;
}

using Header = ElfW(Ehdr);
using Section = ElfW(Shdr);
using Symbol = ElfW(Sym);

// Calls visit(symbol, name) for each symbol of the file's full table.
template <class Visit> void for_each_symbol(const std::vector<char> &file, Visit visit) {
  if (file.size() < sizeof(Header) || memcmp(file.data(), ELFMAG, SELFMAG) != 0) return;
  const auto *header = reinterpret_cast<const Header *>(file.data());
  const auto *sections = reinterpret_cast<const Section *>(file.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; i++) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto *symbols = reinterpret_cast<const Symbol *>(file.data() + sections[i].sh_offset);
    const char *names = file.data() + sections[sections[i].sh_link].sh_offset;
    for (size_t s = 0; s < sections[i].sh_size / sizeof(Symbol); s++) visit(symbols[s], names + symbols[s].st_name);
  }
}

std::string demangled(const std::string &mangled) {
  int status = 0;
  char *text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 && text ? text : mangled;
  free(text);
  // A template's name begins with its return type; the parameters say nothing that a reader misses.
  const size_t open = name.find('(');
  if (name.rfind("void ", 0) == 0) name = name.substr(5, open == std::string::npos ? open : open - 5);
  else if (open != std::string::npos && open > 0) name.resize(open);
  return name;
}

KernelSymbol look_up(const void *kernel) {
  KernelSymbol found;
  found.name = "kernel";
  Module module{kernel, "", 0, 0, 0};
  if (!dl_iterate_phdr(find_module, &module)) return found;
  found.tls_module = module.tls_module;
  found.tls_bytes = module.tls_bytes;
  const std::vector<char> file = read_file(module.path);
  const uintptr_t value = reinterpret_cast<uintptr_t>(kernel) - module.base;
  std::string mangled;
  for_each_symbol(file, [&](const Symbol &symbol, const char *name) {
    if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_value == value) mangled = name;
  });
  if (mangled.empty()) return found;
  found.name = demangled(mangled);
  // A static variable of a function is mangled _ZZ <function> E <name>.
  if (mangled.rfind("_Z", 0) != 0) return found;
  const std::string prefix = "_ZZ" + mangled.substr(2) + "E";
  for_each_symbol(file, [&](const Symbol &symbol, const char *name) {
    if (ELF64_ST_TYPE(symbol.st_info) == kSharedVariable && strncmp(name, prefix.c_str(), prefix.size()) == 0) found.static_shared_bytes += symbol.st_size;
  });
  return found;
}

}  // namespace

namespace {
std::mutex mutex;
std::map<const void *, KernelSymbol> known;
}  // namespace

KernelSymbol kernel_symbol(const void *kernel) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(kernel);
  if (found != known.end()) return found->second;
  return known.emplace(kernel, look_up(kernel)).first->second;
}

void forget_kernel_symbols() {
  std::lock_guard<std::mutex> lock(mutex);
  known.clear();
}

}  // namespace emu
