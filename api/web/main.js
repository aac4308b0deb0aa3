// The page: a trace, a plan, a comparison, a file. Each part has a module; this one joins them.

import * as choose from "./choose.js";
import * as compare from "./compare.js";
import * as key from "./key.js";
import * as solve from "./solve.js";
import * as take from "./take.js";
import * as trace from "./trace.js";

function clear() {
  compare.hide();
  take.hide();
  trace.showPlan(null);
}

key.setUp();
trace.setUp();
take.setUp();
choose.setUp(async (chosen) => {
  clear();
  solve.setTrace(chosen);
  await trace.showTrace(chosen);
});
solve.setUp(clear, async (plan) => {
  take.offer(plan);
  trace.showPlan(plan.plan);
  await compare.compare(plan);
});
