#include "context_core.h"

#include <cstdio>
#include <cstring>

namespace airk {

void copy_text(const std::string &text, char *out, uint64_t capacity) {
  if (!out || capacity == 0) return;
  const std::size_t length = text.size() < capacity ? text.size() : static_cast<std::size_t>(capacity - 1);
  std::memcpy(out, text.data(), length);
  out[length] = 0;
}

std::string json_string(const std::string &text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

airk_status ContextCore::fail(airk_status status, const char *format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof(text), format, arguments);
  try {
    std::lock_guard<std::mutex> lock(error_mutex_);
    error_ = text;
  } catch (...) {
    // Without memory for the text the status alone has to do.
  }
  return status;
}

void ContextCore::make_sticky(airk_status status) {
  std::lock_guard<std::mutex> lock(error_mutex_);
  if (sticky_.load(std::memory_order_relaxed) != AIRK_OK) return;
  try {
    sticky_error_ = error_;
  } catch (...) {
    // Moving needs no memory; synchronizing calls bring the text back.
    sticky_error_.swap(error_);
  }
  sticky_.store(status, std::memory_order_release);
}

airk_status ContextCore::sticky_status() {
  const airk_status status = sticky_.load(std::memory_order_acquire);
  if (status != AIRK_OK) {
    std::lock_guard<std::mutex> lock(error_mutex_);
    error_ = sticky_error_;
  }
  return status;
}

void ContextCore::copy_error(char *message, uint64_t capacity) {
  std::lock_guard<std::mutex> lock(error_mutex_);
  copy_text(error_, message, capacity);
}

airk_status copy_description(airk_context *context, const std::string &description, char *json, uint64_t capacity) {
  if (description.size() >= capacity) {
    return airk::fail(context, AIRK_INVALID, "Cannot describe the device: %zu bytes needed, capacity is %llu", description.size() + 1,
                      static_cast<unsigned long long>(capacity));
  }
  copy_text(description, json, capacity);
  return AIRK_OK;
}

}  // namespace airk
