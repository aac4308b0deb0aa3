// The page: a trace, a plan, a comparison, a file. Each part has a module; this one joins them.

import * as change from "./change.js";
import * as choose from "./choose.js";
import * as compare from "./compare.js";
import * as key from "./key.js";
import * as series from "./series.js";
import * as solve from "./solve.js";
import * as take from "./take.js";
import * as trace from "./trace.js";
import { $ } from "./dom.js";
import { show } from "./problems.js";

function clear() {
  compare.hide();
  take.hide();
  change.hide();
  series.showPlan(null);
  trace.showPlan(null);
}

key.setUp();
trace.setUp();
take.setUp();
series.setUp();
change.setUp((found) => series.showPlan(found.id));
choose.setUp(async (chosen) => {
  clear();
  solve.setTrace(chosen);
  await trace.showTrace(chosen);
});
solve.setUp(clear, async (plan) => {
  take.offer(plan);
  trace.showPlan(plan.plan);
  series.showPlan(plan.id);
  change.offer(plan).catch((error) => show($("change-problem"), error));
  await compare.compare(plan);
});
