// Warp operations: lanes wait in them until all lanes of the mask have come; the last one resolves the operation for all.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "block.h"
#include "settings.h"

namespace emu {

uint64_t BlockRunner::warp_op(WarpOp op, unsigned mask, uint64_t value, int source_lane, void (*resolve)(void **), Location at) {
  Fiber &fiber = *current;
  fiber.op = op;
  fiber.mask = mask;
  fiber.value = value;
  fiber.source_lane = source_lane;
  fiber.resolve = resolve;
  fiber.at = at;
  if (!((mask >> fiber.lane()) & 1)) {
    char message[300];
    snprintf(message, sizeof message, "warp operation at %s:%d: the calling lane is not in its own mask %08x", at.file, at.line, mask);
    fail(719, message);
  }
  fiber.state = FiberState::at_warp_op;
  warp_waiting_[fiber.warp()] |= 1u << fiber.lane();
  if (!resolve_warp(fiber.warp(), mask)) park();
  return fiber.result;
}

namespace {

uint64_t reduce_step(WarpOp op, bool first, uint64_t so_far, uint64_t value) {
  if (first) return value;
  const int64_t a = static_cast<int64_t>(so_far), b = static_cast<int64_t>(value);
  switch (op) {
    case WarpOp::add: return so_far + value;
    case WarpOp::min: return static_cast<uint64_t>(std::min(a, b));
    case WarpOp::max: return static_cast<uint64_t>(std::max(a, b));
    case WarpOp::bit_and: return so_far & value;
    case WarpOp::bit_or: return so_far | value;
    default: return so_far ^ value;
  }
}

}  // namespace

// Completes the operation of these lanes if all of them are there; false where some are still to come.
bool BlockRunner::resolve_warp(unsigned warp, unsigned mask) {
  Fiber *lanes = &fibers_[warp * kWarpLanes];
  const unsigned exist = threads_ - warp * kWarpLanes >= kWarpLanes ? ~0u : (1u << (threads_ % kWarpLanes)) - 1;
  const unsigned present = mask & warp_live_[warp];
  if (!present || (warp_waiting_[warp] & present) != present) return false;
  Fiber *members[kWarpLanes];
  unsigned count = 0;
  for (unsigned lane = 0; lane < kWarpLanes; lane++)
    if ((present >> lane) & 1) members[count++] = &lanes[lane];
  for (unsigned i = 0; i < count; i++)
    if (members[i]->mask != mask) return false;

  const WarpOp op = members[0]->op;
  const Location at = members[0]->at;
  char message[400];
  const unsigned gone = mask & exist & ~present;
  if (gone && settings.strict) {
    snprintf(message, sizeof message, "warp operation at %s:%d names lanes %08x that have returned", at.file, at.line, gone);
    fail(719, message);
  }
  for (unsigned i = 1; i < count; i++) {
    if (members[i]->op == op) continue;
    snprintf(message, sizeof message, "divergent warp operations: some lanes at %s:%d, others at %s:%d", at.file, at.line, members[i]->at.file, members[i]->at.line);
    fail(719, message);
  }

  uint64_t combined = 0;
  if (op == WarpOp::collective) {
    if (count != kWarpLanes) {
      snprintf(message, sizeof message, "matrix operation at %s:%d without all 32 lanes", at.file, at.line);
      fail(719, message);
    }
    void *pointers[kWarpLanes];
    for (unsigned i = 0; i < count; i++) pointers[i] = reinterpret_cast<void *>(members[i]->value);
    members[0]->resolve(pointers);
  } else if (op == WarpOp::ballot) {
    for (unsigned i = 0; i < count; i++) combined |= (members[i]->value & 1) << members[i]->lane();
  } else if (op != WarpOp::shuffle && op != WarpOp::sync) {
    for (unsigned i = 0; i < count; i++) combined = reduce_step(op, i == 0, combined, members[i]->value);
  }
  for (unsigned i = 0; i < count; i++) {
    Fiber &fiber = *members[i];
    if (op == WarpOp::shuffle) {
      const unsigned source = static_cast<unsigned>(fiber.source_lane) % kWarpLanes;
      if (!((present >> source) & 1)) {
        snprintf(message, sizeof message, "shuffle at %s:%d: lane %u reads lane %u, which is not in mask %08x or has returned", at.file, at.line, fiber.lane(),
                 source, mask);
        fail(719, message);
      }
      fiber.result = lanes[source].value;
    } else {
      fiber.result = combined;
    }
  }
  warp_waiting_[warp] &= ~present;
  for (unsigned i = 0; i < count; i++) {
    Fiber &fiber = *members[i];
    if (op == WarpOp::sync) fiber.warp_syncs++;
    if (&fiber == current) fiber.state = FiberState::ready;
    else make_ready(fiber);
  }
  return true;
}

}  // namespace emu
