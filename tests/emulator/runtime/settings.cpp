#include "settings.h"

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <map>

namespace emu {

Settings settings;

namespace {

bool parse_number(const std::string &text, uint64_t &value) {
  char *end = nullptr;
  errno = 0;
  value = strtoull(text.c_str(), &end, 10);
  return !text.empty() && text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0;
}

bool parse_bytes(const std::string &text, uint64_t &bytes) {
  static const std::map<std::string, int> units = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
  const size_t digits = text.find_first_not_of("0123456789");
  const auto unit = units.find(digits == std::string::npos ? "" : text.substr(digits));
  if (unit == units.end() || !parse_number(text.substr(0, digits), bytes)) return false;
  bytes <<= unit->second;
  return true;
}

using Parser = std::function<bool(Settings &, const std::string &)>;

Parser number(uint64_t Settings::*field) {
  return [field](Settings &to, const std::string &text) { return parse_number(text, to.*field); };
}
Parser bytes(uint64_t Settings::*field) {
  return [field](Settings &to, const std::string &text) { return parse_bytes(text, to.*field); };
}
Parser integer(int Settings::*field, int least, int most) {
  return [=](Settings &to, const std::string &text) {
    uint64_t value;
    if (!parse_number(text, value) || value > static_cast<uint64_t>(most) || static_cast<int>(value) < least) return false;
    to.*field = static_cast<int>(value);
    return true;
  };
}
Parser flag(bool Settings::*field) {
  return [field](Settings &to, const std::string &text) {
    to.*field = text == "1";
    return text == "0" || text == "1";
  };
}
template <class T> Parser choice(T Settings::*field, std::map<std::string, T> names) {
  return [=](Settings &to, const std::string &text) {
    const auto found = names.find(text);
    if (found != names.end()) to.*field = found->second;
    return found != names.end();
  };
}

const std::map<std::string, Parser> &parsers() {
  static const std::map<std::string, Parser> table = {
      {"vram", bytes(&Settings::vram_bytes)},
      {"reserved", bytes(&Settings::reserved_bytes)},
      {"devices", integer(&Settings::devices, 0, 16)},
      {"compute_capability", choice<int>(&Settings::compute_capability,
                                         {{"7.5", 75}, {"8.0", 80}, {"8.6", 86}, {"8.9", 89}, {"9.0", 90}, {"10.0", 100}, {"12.0", 120}})},
      {"driver", flag(&Settings::driver)},
      {"streams", choice<Streams>(&Settings::streams, {{"eager", Streams::eager}, {"lazy", Streams::lazy}, {"random", Streams::random}})},
      {"order", choice<Order>(&Settings::order, {{"natural", Order::natural}, {"reverse", Order::reverse}, {"random", Order::random}})},
      {"seed", number(&Settings::seed)},
      {"threads", integer(&Settings::threads, 0, 256)},
      {"stack", bytes(&Settings::stack_bytes)},
      {"strict", flag(&Settings::strict)},
      {"poison", bytes(&Settings::poison_bytes)},
      {"quiet", flag(&Settings::quiet)},
      {"fail_malloc", number(&Settings::fail_malloc)},
      {"fail_host_alloc", number(&Settings::fail_host_alloc)},
      {"fail_launch", number(&Settings::fail_launch)},
      {"fail_sync", number(&Settings::fail_sync)},
      {"fail_error", integer(&Settings::fail_error, 1, 999)},
  };
  return table;
}

}  // namespace

std::string configure(const char *text) {
  Settings wanted = settings;
  const std::string all = text ? text : "";
  for (size_t from = 0; from < all.size();) {
    const size_t comma = std::min(all.find(',', from), all.size());
    const std::string pair = all.substr(from, comma - from);
    from = comma + 1;
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string key = pair.substr(0, equals), value = equals < pair.size() ? pair.substr(equals + 1) : "";
    const auto parser = parsers().find(key);
    if (parser == parsers().end()) return "Cannot configure the CUDA emulator: it has no setting '" + key + "'";
    if (!parser->second(wanted, value)) return "Cannot configure the CUDA emulator: '" + value + "' is no value of " + key;
  }
  settings = wanted;
  return "";
}

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
uint64_t Settings::shared_optin_bytes() const {
  switch (compute_capability) {
    case 75: return 64 << 10;
    case 80: return 163 << 10;
    case 90:
    case 100: return 227 << 10;
    default: return 99 << 10;
  }
}
uint64_t Settings::shared_multiprocessor_bytes() const { return shared_optin_bytes() + (compute_capability == 75 ? 0 : 1 << 10); }

}  // namespace emu
