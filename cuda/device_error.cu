#include "device_error.h"

#include <cstdio>

namespace airk {

std::string text_of(const DeviceError &error) {
  static const char *const users[] = {"matmul", "dequantize", "embedding"};
  char text[256] = "";
  const auto write = [&](const char *format, auto... values) { std::snprintf(text, sizeof(text), format, values...); };
  switch (error.complaint) {
    case Complaint::none:
      break;
    case Complaint::embedding_id:
      write("Cannot embedding: id %lld of token %lld, required 0 to %lld", error.value, error.index, error.limit - 1);
      break;
    case Complaint::gather_id:
      write("Cannot run gather_rows: ids[%lld] is %lld, required is 0 to %lld", error.index, error.value, error.limit - 1);
      break;
    case Complaint::scatter_id:
      write("Cannot run scatter_add: ids[%lld] is %lld, required is 0 to %lld", error.index, error.value, error.limit - 1);
      break;
    case Complaint::slot:
      write("Cannot run kv_append: slots[%lld] is %lld, required is at least 0", error.index, error.value);
      break;
    case Complaint::outliers:
      write("Cannot %s: the outlier sections of the q4o extent are corrupt", users[error.value]);
      break;
    default: {
      const int code = static_cast<int>(error.complaint) - static_cast<int>(Complaint::sequence), faults = static_cast<int>(SequenceFault::count);
      describe(static_cast<SequenceUser>(code / faults), {static_cast<SequenceFault>(code % faults), error.index, error.value, error.limit}, text, sizeof(text));
    }
  }
  return text;
}

}  // namespace airk
