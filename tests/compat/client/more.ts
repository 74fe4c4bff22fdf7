/** Cases of views, HTTP handlers, schedules, submodules and outbound HTTP. */
import type { Case } from "./cases";

export const more: Record<string, Case> = {};
