// The outliers of q4o in tiles: added to the weights that a warp has decoded, one block of 32 columns after the other.
//
// kLanes lanes decode a row, and at first each of them looks at one of the row's next outliers, which it keeps in a register: in most
// blocks that costs one comparison and a vote. Where all outliers that a row's lanes hold lie in the block, the whole warp takes what
// the row has left there, 32 at a time, which is as many as the block has columns. So the work of a thread is bounded by the number of
// rows, however unevenly the outliers lie.
#pragma once

#include "warp.h"
#include "weights.h"

namespace airk {

template <int kLanes> class OutlierWalk {
 public:
  // All lanes of the warp together; `row` is the one that this lane's group decodes, without outliers where it does not exist.
  __device__ OutlierWalk(const Weight &w, uint64_t row, bool exists, DeviceError *error)
      : row_(row), lane_(static_cast<int>(threadIdx.x) & 31), part_(static_cast<int>(threadIdx.x) % kLanes), error_(error) {
    if (exists) device_outliers(w, row, error, kMatmul, &next_, &end_);
    fetch(w);
  }

  // Calls add(row of the warp's, column of the block, value) for every outlier of the block, each by one lane. The warp's rows are decoded
  // and visible to all its lanes. Blocks come in ascending order. Outliers that do not ascend are reported; their row has no more of them.
  template <class Add> __device__ __forceinline__ void take(const Weight &w, uint64_t block, const Add &add) {
    const unsigned first = static_cast<unsigned>(block) * 32, end = min(first + 32, static_cast<unsigned>(w.cols));
    if (!__any_sync(kAllLanes, is_due(w, col_, end))) return;
    bool due = is_due(w, col_, end);
    const unsigned before = __shfl_up_sync(kAllLanes, col_, 1);
    const unsigned faults = __ballot_sync(kAllLanes, due && (col_ < first || col_ >= w.cols || (part_ > 0 && before >= col_)));
    if (faults != 0 && of_own_row(faults) != 0) due = drop();
    if (due) add(lane_ / kLanes, static_cast<int>(col_ - first), value(w, next_ + part_));
    const int taken = __popc(of_own_row(__ballot_sync(kAllLanes, due)));
    next_ += taken;
    if (taken > 0) fetch(w);
    for (unsigned full = __ballot_sync(kAllLanes, part_ == 0 && taken == kLanes && is_due(w, col_, end)); full != 0; full &= full - 1) {
      // Also makes visible what was added so far.
      __syncwarp();
      take_row(w, __ffs(static_cast<int>(full)) - 1, first, end, add);
    }
  }

 private:
  static constexpr unsigned kNone = ~0u;

  static __device__ float value(const Weight &w, uint64_t index) { return outlier_unit * device_f16(w.q4o.outlier[index]); }
  // In the block, or nowhere in the row.
  static __device__ bool is_due(const Weight &w, unsigned col, unsigned end) { return col < end || (col >= w.cols && col != kNone); }
  __device__ unsigned of_own_row(unsigned lanes) const { return lanes >> (lane_ - part_) & ((1u << kLanes) - 1); }
  __device__ void fetch(const Weight &w) { col_ = next_ + part_ < end_ ? w.q4o.outlier_col[next_ + part_] : kNone; }

  __device__ bool drop() {
    if (part_ == 0) report(error_, Complaint::outliers, static_cast<long long>(row_), kMatmul, 0);
    end_ = next_;
    col_ = kNone;
    return false;
  }

  template <class Add> __device__ void take_row(const Weight &w, int leader, unsigned first, unsigned end, const Add &add) {
    const uint64_t index = __shfl_sync(kAllLanes, next_, leader) + lane_;
    const unsigned col = index < __shfl_sync(kAllLanes, end_, leader) ? w.q4o.outlier_col[index] : kNone;
    const bool due = is_due(w, col, end);
    const unsigned before = __shfl_up_sync(kAllLanes, col, 1);
    const unsigned all_due = __ballot_sync(kAllLanes, due);
    const unsigned faults = __ballot_sync(kAllLanes, due && (col < first || col >= w.cols || (lane_ > 0 && before >= col)));
    if (due && faults == 0) add(leader / kLanes, static_cast<int>(col - first), value(w, index));
    if (lane_ / kLanes != leader / kLanes) return;
    if (faults != 0) {
      drop();
    } else {
      next_ += __popc(all_due);
      fetch(w);
    }
  }

  uint64_t row_, next_ = 0, end_ = 0;
  unsigned col_;
  int lane_, part_;
  DeviceError *error_;
};

}  // namespace airk
