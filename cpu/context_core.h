// What the contexts of both libraries have: the cancel flag, the latest error's text, and the error that is final.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <mutex>
#include <new>
#include <string>

#include "isa.h"
#include "runtime.h"
#include "thread_pool.h"

namespace airk {

constexpr int32_t kMostThreads = 1024;

// NUL-terminated, cut to capacity.
void copy_text(const std::string &text, char *out, uint64_t capacity);

// Quoted; control characters are left out.
std::string json_string(const std::string &text);

struct ContextCore {
  std::atomic<bool> cancel{false};

  // Keeps the text of the latest error; returns the status.
  airk_status fail(airk_status status, const char *format, va_list arguments);
  // Makes the latest error final; the first one stays.
  void make_sticky(airk_status status);
  // Whether an error is final.
  bool failed() const { return sticky_.load(std::memory_order_acquire) != AIRK_OK; }
  // The final error's status, AIRK_OK where there is none; its text becomes the latest again.
  airk_status sticky_status();
  void copy_error(char *message, uint64_t capacity);

 private:
  std::mutex error_mutex_;
  std::string error_;
  std::atomic<airk_status> sticky_{AIRK_OK};
  std::string sticky_error_;
};

// The body of airk_context_create: make(threads, refuse) sets *context or returns refuse(status, reason).
template <class Make>
airk_status create_context(int32_t threads, airk_context **context, char *message, uint64_t message_capacity, Make &&make) {
  if (!context) return AIRK_INVALID;
  *context = nullptr;
  copy_text("", message, message_capacity);
  const auto refuse = [&](airk_status status, const std::string &reason) {
    copy_text(reason, message, message_capacity);
    return status;
  };
  try {
    if (threads < 0 || threads > kMostThreads) {
      return refuse(AIRK_INVALID, "Cannot start " + std::to_string(threads) + " threads: required are 0 to " + std::to_string(kMostThreads));
    }
    return make(threads == 0 ? std::min<int32_t>(usable_processors(), kMostThreads) : threads, refuse);
  } catch (const std::bad_alloc &) {
    copy_text("Cannot open the device: no memory", message, message_capacity);
    return AIRK_OUT_OF_MEMORY;
  } catch (...) {
    copy_text("Cannot open the device: the system refused a thread", message, message_capacity);
    return AIRK_DEVICE_ERROR;
  }
}

// The body of airk_device_description.
airk_status copy_description(airk_context *context, const std::string &description, char *json, uint64_t capacity);

}  // namespace airk
