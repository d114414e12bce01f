/**
 * What the command line says of routed experts.
 * @module
 */
import { type EngineStatistics, expertHitRate, type ExpertTotals } from "../engine/statistics.ts";
import { formatBytes } from "../memory/bytes.ts";
import type { ExpertPlan, Plan } from "../memory/plan.ts";

const percent = (share: number): string => `${(100 * share).toFixed(1)}%`;

/** Returns the rows of a plan's table; none for a model without experts. */
export function expertPlanRows({ experts, device }: Pick<Plan, "experts" | "device">): string[][] {
  if (!experts) return [];
  const { cacheBytes, hostBytes, totalBytes, activeBytesPerToken, assumedHitRate, assumedCopyRate } = experts;
  const copied = hostBytes > 0 ? `, ${percent(assumedCopyRate)} copied from host memory` : "";
  return [
    [`experts in ${device ? "device " : ""}memory`, formatBytes(cacheBytes), `of ${formatBytes(totalBytes)}`],
    ...(device ? [["experts in host memory, copied when used", formatBytes(hostBytes), ""]] : []),
    ["experts a token uses", formatBytes(activeBytesPerToken), `${percent(assumedHitRate)} of them assumed in memory${copied}`],
  ];
}

/** Returns the rows of a run's table; none for a model without experts. */
export function expertStatisticsRows({ prefill, decode }: Pick<EngineStatistics, "prefill" | "decode">): string[][] {
  return ([["prompt", prefill.experts], ["decode", decode.experts]] as const).flatMap(([what, totals]) => {
    if (totals.used === 0) return [];
    const copied = totals.copiedBytes > 0 ? `, ${formatBytes(totals.copiedBytes)} copied from host memory` : "";
    const foreseen = totals.predictable > 0 ? `, ${percent(totals.predicted / totals.predictable)} foreseen` : "";
    return [[
      `experts used, ${what}`,
      `${totals.used}`,
      `${percent(expertHitRate(totals))} of their bytes in memory${copied}${foreseen}`,
    ]];
  });
}

/** What JSON says of routing: the counts, and what they come to. */
export interface ExpertFigures extends ExpertTotals {
  hitRate: number;
  /** Share of the experts that were foreseen a layer ahead, where they could be. */
  predictionRate: number;
}

/** Returns the figures of one kind of passes. */
export function expertFigures(totals: ExpertTotals): ExpertFigures {
  const predictionRate = totals.predictable > 0 ? totals.predicted / totals.predictable : 0;
  return { ...totals, hitRate: expertHitRate(totals), predictionRate };
}

/** Returns what JSON says of a run's routing; nothing for a model without experts. */
export function expertRunFigures(
  plan: Pick<Plan, "experts">,
  { prefill, decode }: Pick<EngineStatistics, "prefill" | "decode">,
): { experts?: { plan: ExpertPlan; prefill: ExpertFigures; decode: ExpertFigures } } {
  if (!plan.experts) return {};
  return { experts: { plan: plan.experts, prefill: expertFigures(prefill.experts), decode: expertFigures(decode.experts) } };
}
