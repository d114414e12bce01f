#include "memory_info.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

namespace airk {

namespace {

struct Closer {
  void operator()(std::FILE *file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closer>;

// Value of the line that starts with `key`, times `unit`; false where there is none.
bool read_keyed(const std::string &path, const char *key, uint64_t unit, uint64_t *value) {
  const File file(std::fopen(path.c_str(), "re"));
  if (!file) return false;
  char line[256];
  const std::size_t length = std::strlen(key);
  while (std::fgets(line, sizeof(line), file.get())) {
    if (std::strncmp(line, key, length) != 0) continue;
    *value = std::strtoull(line + length, nullptr, 10) * unit;
    return true;
  }
  return false;
}

// The number that a file consists of; false for "max" too, which means no limit.
bool read_number(const std::string &path, uint64_t *value) {
  const File file(std::fopen(path.c_str(), "re"));
  unsigned long long number;
  if (!file || std::fscanf(file.get(), "%llu", &number) != 1) return false;
  *value = number;
  return true;
}

// Lowers the answer to what one control group leaves. Page cache that can be dropped counts as free.
void apply_limit(const std::string &folder, const char *limit_name, const char *usage_name, const char *cache_key, MemoryInfo *info) {
  uint64_t limit, usage, cache = 0;
  if (!read_number(folder + limit_name, &limit) || !read_number(folder + usage_name, &usage)) return;
  read_keyed(folder + "/memory.stat", cache_key, 1, &cache);
  const uint64_t taken = usage > cache ? usage - cache : 0;
  const uint64_t left = limit > taken ? limit - taken : 0;
  if (limit < info->total_bytes) info->total_bytes = limit;
  if (left < info->free_bytes) info->free_bytes = left;
}

// Every group above limits this one too.
void apply_limits(const std::string &root, std::string path, const char *limit_name, const char *usage_name, const char *cache_key,
                  MemoryInfo *info) {
  for (;;) {
    apply_limit(root + path, limit_name, usage_name, cache_key, info);
    const std::size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return;
    path.erase(slash);
  }
}

}  // namespace

MemoryInfo read_memory_info() {
  MemoryInfo info{};
  if (!read_keyed("/proc/meminfo", "MemTotal:", 1024, &info.total_bytes) ||
      !read_keyed("/proc/meminfo", "MemAvailable:", 1024, &info.free_bytes)) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    info.total_bytes = info.free_bytes = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page);
  }
  const File groups(std::fopen("/proc/self/cgroup", "re"));
  char line[1024];
  while (groups && std::fgets(line, sizeof(line), groups.get())) {
    line[std::strcspn(line, "\n")] = 0;
    // hierarchy:controllers:path; version 2 names no controllers.
    char *controllers = std::strchr(line, ':');
    char *path = controllers ? std::strchr(controllers + 1, ':') : nullptr;
    if (!path) continue;
    *path++ = 0;
    controllers++;
    const std::string group = std::strcmp(path, "/") == 0 ? "" : path;
    if (*controllers == 0) {
      apply_limits("/sys/fs/cgroup", group, "/memory.max", "/memory.current", "inactive_file ", &info);
    } else if (std::string(",").append(controllers).append(",").find(",memory,") != std::string::npos) {
      apply_limits("/sys/fs/cgroup/memory", group, "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file ", &info);
    }
  }
  return info;
}

}  // namespace airk
