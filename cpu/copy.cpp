// Copies and fills. They run on the stream's own thread, beside the computing of other streams.
#include <cstring>

#include "context.h"

namespace {

airk_status enqueue_copy(airk_stream *stream, const char *what, void *to, const void *from, uint64_t bytes) {
  if (!stream) return AIRK_INVALID;
  airk_context *context = airk::context_of(stream);
  if (bytes == 0) return AIRK_OK;
  if (!to || !from) {
    return airk::fail(context, AIRK_INVALID, "Cannot run %s: `%s` is null, required are %llu bytes there", what, to ? "from" : "to",
                      static_cast<unsigned long long>(bytes));
  }
  return airk::guarded(context, [&] {
    return airk::enqueue_transfer(stream, [=] {
      std::memmove(to, from, bytes);
      return AIRK_OK;
    });
  });
}

}  // namespace

extern "C" airk_status airk_copy_to_device(airk_stream *stream, airk_ptr to, const void *from, uint64_t bytes) {
  return enqueue_copy(stream, "copy_to_device", airk::at<void>(to), from, bytes);
}

extern "C" airk_status airk_copy_to_host(airk_stream *stream, void *to, airk_ptr from, uint64_t bytes) {
  return enqueue_copy(stream, "copy_to_host", to, airk::at<void>(from), bytes);
}

extern "C" airk_status airk_copy_on_device(airk_stream *stream, airk_ptr to, airk_ptr from, uint64_t bytes) {
  return enqueue_copy(stream, "copy_on_device", airk::at<void>(to), airk::at<void>(from), bytes);
}

extern "C" airk_status airk_fill(airk_stream *stream, airk_ptr to, uint8_t value, uint64_t bytes) {
  if (!stream) return AIRK_INVALID;
  airk_context *context = airk::context_of(stream);
  if (bytes == 0) return AIRK_OK;
  if (!to) {
    return airk::fail(context, AIRK_INVALID, "Cannot run fill: `to` is null, required are %llu bytes there",
                      static_cast<unsigned long long>(bytes));
  }
  return airk::guarded(context, [&] {
    return airk::enqueue_transfer(stream, [=] {
      std::memset(airk::at<void>(to), value, bytes);
      return AIRK_OK;
    });
  });
}
