// The library, its contexts and their errors.
#include <cstdarg>
#include <cstdlib>
#include <string>

#include "context.h"
#include "isa.h"

namespace airk {

namespace {

// Reads "key=value,key=value". Returns the complaint, empty where there is none.
std::string parse_options(const std::string &options, Isa *isa) {
  for (std::size_t begin = 0; begin < options.size();) {
    std::size_t end = options.find(',', begin);
    if (end == std::string::npos) end = options.size();
    const std::string option = options.substr(begin, end - begin);
    begin = end + 1;
    if (option.compare(0, 4, "isa=") != 0) return "Cannot use option \"" + option + "\": known is isa=";
    Isa wanted;
    if (!parse_isa(option.substr(4), &wanted)) {
      return "Cannot use option \"" + option + "\": isa is one of portable, avx2, avx512, amx";
    }
    if (wanted < *isa) *isa = wanted;
  }
  return "";
}

}  // namespace

Isa isa_of(const airk_context *context) { return context->isa; }

int thread_count(const airk_context *context) { return context->pool.threads(); }

bool cancelled(const airk_context *context) { return context->cancel.load(std::memory_order_relaxed); }

void parallel_for(airk_context *context, int64_t items, int64_t grain, const RangeBody &body) {
  if (context->pool.run(items, grain, body)) return;
  make_sticky(context, fail(context, AIRK_OUT_OF_MEMORY, "Cannot finish an operation: no memory within a thread of the pool"));
}

void *scratch(airk_context *context, std::size_t bytes) {
  context->scratch_labelled = false;
  if (bytes <= context->scratch_bytes && context->scratch) return context->scratch;
  std::free(context->scratch);
  context->scratch = nullptr;
  context->scratch_bytes = 0;
  void *memory = nullptr;
  const std::size_t rounded = (bytes + 63) / 64 * 64;
  if (rounded < bytes || posix_memalign(&memory, 64, rounded ? rounded : 64) != 0) return nullptr;
  context->scratch = memory;
  context->scratch_bytes = rounded;
  return memory;
}

void keep_scratch(airk_context *context, const ScratchLabel &label) {
  context->scratch_label = label;
  context->scratch_labelled = true;
}

void *kept_scratch(airk_context *context, const ScratchLabel &label, std::size_t bytes) {
  const bool kept = context->scratch_labelled && context->scratch_label == label && context->scratch_bytes >= bytes;
  return kept ? context->scratch : nullptr;
}

airk_status fail(airk_context *context, airk_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  context->fail(status, format, arguments);
  va_end(arguments);
  return status;
}

void make_sticky(airk_context *context, airk_status status) { context->make_sticky(status); }

airk_status sticky_status(airk_context *context) { return context->sticky_status(); }

}  // namespace airk

airk_context::airk_context(int threads, airk::Isa wanted) : isa(wanted), pool(threads) {}

airk_context::~airk_context() {
  // Each stream runs its queue to the end, so none waits for ever for another's event.
  for (airk_stream *stream : streams) delete stream;
  for (airk_event *event : events) delete event;
  airk::release_blocks(this);
  std::free(scratch);
}

extern "C" uint32_t airk_abi_version(void) { return AIRK_ABI_VERSION; }

extern "C" airk_status airk_device_count(int32_t *count) {
  if (!count) return AIRK_INVALID;
  *count = 1;
  return AIRK_OK;
}

extern "C" airk_status airk_context_create(int32_t device, int32_t threads, const char *options, airk_context **context, char *message,
                                           uint64_t message_capacity) {
  return airk::create_context(threads, context, message, message_capacity, [&](int32_t wanted, auto refuse) -> airk_status {
    if (device != 0) {
      return refuse(AIRK_NO_DEVICE, "Cannot open device " + std::to_string(device) + ": the CPU twin has device 0 alone");
    }
    airk::Isa isa = airk::detect_isa();
    const std::string complaint = airk::parse_options(options ? options : "", &isa);
    if (!complaint.empty()) return refuse(AIRK_INVALID, complaint);
    *context = new airk_context(wanted, isa);
    return AIRK_OK;
  });
}

extern "C" void airk_context_destroy(airk_context *context) { delete context; }

extern "C" airk_status airk_error_message(airk_context *context, char *message, uint64_t capacity) {
  if (!context || !message || capacity == 0) return AIRK_INVALID;
  context->copy_error(message, capacity);
  return AIRK_OK;
}

extern "C" airk_status airk_device_description(airk_context *context, char *json, uint64_t capacity) {
  if (!context || !json) return AIRK_INVALID;
  return airk::guarded(context, [&] {
    const std::string text = "{\"kind\":\"cpu\",\"name\":" + airk::json_string(airk::processor_name()) + ",\"isa\":\"" +
                             airk::isa_name(context->isa) + "\",\"threads\":" + std::to_string(context->pool.threads()) +
                             ",\"unifiedMemory\":true}";
    return airk::copy_description(context, text, json, capacity);
  });
}

extern "C" airk_status airk_context_cancel(airk_context *context, int32_t cancelled) {
  if (!context) return AIRK_INVALID;
  context->cancel.store(cancelled != 0, std::memory_order_relaxed);
  return AIRK_OK;
}
