// The page: controls → state → the worker's answers → numbers, figures and the matrix.
import { PROCEDURES, START, family } from "../maths/answers.js";
import { commandOf, hashOf, nats, percent, real, settled, stateFrom, transformName } from "./words.js";
import { buildControls } from "./controls.js";
import { cellColours, draw, smooth, ticksBetween } from "./figures.js";

const find = (id) => document.getElementById(id);
const start = settled({ ...START, ...JSON.parse(find("start").textContent) });
let state = stateFrom(location.hash, start), asked = 0, answers = {}, worker = null, busySince = 0;

/** The maths in a worker of its own; on the page itself where a browser refuses that. */
function newWorker() {
  const text = `${find("maths").textContent}\n`;
  try {
    const url = URL.createObjectURL(new Blob([text, "serve(self);"], { type: "text/javascript" }));
    return new Worker(url);
  } catch {
    const script = document.createElement("script"), port = { postMessage: (data) => channel.onmessage({ data }) };
    const channel = { terminate() {}, postMessage: (data) => port.onmessage({ data }) };
    script.textContent = `{${text}window.servePlanner = serve;}`;
    document.head.append(script);
    window.servePlanner(port);
    return channel;
  }
}

/** Ask for all answers of the state. A worker that has long been at something older is replaced. */
function ask() {
  const now = performance.now();
  if (worker === null || (busySince > 0 && now - busySince > 600)) {
    worker?.terminate();
    worker = newWorker();
    worker.onmessage = ({ data }) => { if (data.id === asked) receive(data); };
  }
  busySince = now;
  asked += 1;
  answers = { frontier: {}, mismatch: {}, shown: answers.shown };
  Object.assign(document.documentElement.dataset, { settled: "", numbers: "" });
  for (const panel of ["numbers", "frontier", "phi", "density", "mismatch"]) find(panel).classList.add("stale");
  worker.postMessage({ id: asked, state });
  clearTimeout(soon.late);
  soon.late = setTimeout(sayLate, PATIENT);
}

/** What is still being looked for: some optima take long, and some are never found. */
function sayLate() {
  if (answers.limits) return;
  const what = answers.numbers?.label ? "The limit" : "An optimum";
  find("notice").hidden = false;
  find("notice").textContent = `${what} was not found within 10 seconds at KL ${state.kl} for this procedure. Ask for a smaller KL, or fewer responses.`;
  if (!answers.numbers?.label) find("sentence").textContent = "No number here yet.";
}

function receive({ part, value }) {
  busySince = performance.now();
  if (value?.failed) console.error(`${part}: ${value.failed}`);
  if (part === "frontier") (answers.frontier[value.name] ??= []).push(value);
  else if (part === "mismatch") {
    if (Object.keys(answers.mismatch).length === 0) showFrontier(); // the frontier is complete
    answers.mismatch[value.value] = value.row;
  }
  else if (part !== "done") answers[part] = value;
  if (["numbers", "limits", "rollouts"].includes(part)) showNumbers();
  if (part === "numbers" && value.curves) { showPhi(); showDensity(); }
  if (part === "done") {
    busySince = 0;
    showMismatch();
    document.documentElement.dataset.settled = hashOf(state);
  }
}

const soon = { hash: 0, say: 0, late: 0 };
/** Milliseconds after which a person is told what has not been found. */
const PATIENT = 10000;

function changed(next) {
  state = next;
  find("command").value = commandOf(state);
  clearTimeout(soon.hash);
  soon.hash = setTimeout(() => {
    if (window.top === window) history.replaceState(null, "", hashOf(state)); // not inside a report
  }, 120);
  ask();
}

// --- numbers ---

function showNumbers() {
  const { numbers = {}, limits, rollouts } = answers, gold = state.agreement < 1;
  const limit = gold ? limits?.goldLimit : limits?.limit;
  const judged = gold ? numbers.gold : numbers.decoded;
  const wait = "…", at = `${numbers.label ?? ""} at a KL of ${nats(state.kl)}`;
  const rows = [
    ["decoded", "decoded win rate", percent(numbers.decoded), numbers.decoded, "both sides by the procedure"],
    gold && ["gold", "gold win rate", percent(numbers.gold), numbers.gold, `judged at ρ = ${state.agreement}`],
    ["ordinary", "ordinary win rate", percent(numbers.ordinary), numbers.ordinary, "one response each"],
    ["limit", "the limit", limits ? percent(limits.limit) : wait, limits?.limit, "most any policy has"],
    gold && ["goldLimit", "the gold limit", limits ? percent(limits.goldLimit) : wait, limits?.goldLimit, "by the gold judge"],
    ["fraction", gold ? "of the gold limit" : "fraction of the limit", ...fraction(judged, limit), "of the gain over 50 %"],
    ["beta", "β to train with", real(numbers.beta), numbers.beta, `ends at KL ${state.kl}`],
    ["candidates", "responses per answer", real(numbers.candidates, 3), numbers.candidates, "expected, aligned policy"],
    state.k > 0 && rolloutRow(rollouts),
  ].filter(Boolean);
  find("numbers").innerHTML = rows.map(([key, title, text, value, note]) =>
    `<div><dt>${title}</dt><dd data-name="${key}" data-value="${value ?? ""}">${text}<small>${note}</small></dd></div>`).join("");
  find("numbers").classList.toggle("stale", !numbers.label);
  if (limits && (state.k === 0 || rollouts)) document.documentElement.dataset.numbers = hashOf(state);
  const main = gold ? `The gold judge prefers it in <b>${percent(judged)}</b> of cases` : `It wins <b>${percent(judged)}</b>`;
  find("sentence").innerHTML = numbers.missing ? "No number here." :
    `${main}, trained on ${transformName(state)} and decoded by ${at}.`;
  showNotice(numbers, limits, rollouts);
  clearTimeout(soon.say);
  soon.say = setTimeout(() => {
    const what = gold ? "Gold win rate" : "Decoded win rate";
    find("live").textContent = `${what} ${percent(judged)}, ${at}, ${transformName(state)}.`;
  }, 700);
}

function fraction(judged, limit) {
  if (!(limit > 0.5 + 1e-12)) return [limit === 0.5 ? "—" : "…", NaN];
  const share = (judged - 0.5) / (limit - 0.5);
  return [`${(100 * share).toFixed(1)} %`, share];
}

function rolloutRow(rollouts) {
  const title = `with K = ${state.k} rollouts`;
  if (!rollouts) return ["rollouts", title, "…", NaN, "calibrated by so many"];
  if (rollouts.reason) return ["rollouts", title, "—", NaN, rollouts.reason];
  if (rollouts.largest) return ["rollouts", title, "out of reach", NaN, `K rollouts reach at most KL ${real(0.999 * rollouts.largest, 3)}`];
  return ["rollouts", title, percent(rollouts.winRate), rollouts.winRate, state.agreement < 1 ? "by the gold judge" : "both sides by the procedure"];
}

function showNotice(numbers, limits, rollouts) {
  const said = [];
  if (numbers.missing) said.push(`The transform that wins most was not found at KL ${state.kl} for this procedure. Ask for a smaller KL, or use the exponential transform.`);
  else if (limits && Number.isNaN(limits.limit)) said.push(`The limit was not found at KL ${state.kl} for this procedure: numbers beside it are right, fractions are missing. Ask for a smaller KL.`);
  else if (limits && Number.isNaN(limits.goldLimit)) said.push(`The gold limit was not found at KL ${state.kl}: fractions are missing. Ask for a smaller KL.`);
  if (state.agreement === 0) said.push("At ρ = 0 the selecting reward says nothing about the gold one: whatever is trained, the gold win rate is 50 %.");
  if (rollouts?.largest) said.push(`A KL of ${nats(state.kl)} is out of reach with ${state.k} calibration rollouts: all mass on the best of them is a KL of ${real(rollouts.largest, 3)}. Use more rollouts or a smaller KL.`);
  find("notice").hidden = said.length === 0;
  find("notice").textContent = said.join(" ");
}

// --- figures ---

function showFrontier() {
  const gold = state.agreement < 1, names = { limit: gold ? "gold limit" : "limit (optimal)", optimal: "optimal", identity: "identity", log: "log", exponential: `exp(${state.t})` };
  const curves = Object.entries(answers.frontier).map(([key, values]) => ({
    key, name: names[key],
    points: smooth([[0, 0.5], ...values.filter((v) => v.point).map((v) => [v.kl, v.point.winRate])]),
  })).filter(({ points }) => points.length > 1);
  const judged = gold ? answers.numbers.gold : answers.numbers.decoded, at = [state.kl, judged];
  const all = [judged, ...curves.flatMap(({ points }) => points.map((p) => p[1]))].filter(Number.isFinite);
  const min = Math.min(0.5, Math.floor(20 * Math.min(...all)) / 20), high = Math.ceil(20 * Math.max(...all)) / 20;
  const ends = curves.map(({ name, points }) => `${name} ${percent(points[points.length - 1][1], 1)}`).join(", ");
  draw(find("frontier"), {
    curves, mark: at, alt: `Win rate after decoding against KL from 0 to 4 nats. At 4 nats: ${ends}. The current plan: ${percent(judged)} at ${nats(state.kl)}.`,
    x: { min: 0, max: 4, ticks: [0, 1, 2, 3, 4], text: (v) => `${v}`, title: "KL from the reference, nats" },
    y: { min, max: high, ticks: ticksBetween(min, high), text: (v) => `${Math.round(1000 * v) / 10} %` },
  });
  const who = gold ? `Judged by a gold reward that agrees at ρ = ${state.agreement}. ` : "";
  find("frontier-caption").textContent = `${who}The ring is the current plan. No policy lies above the limit.${gold ? " Where a curve falls, the policy exploits the reward that selects." : ""}`;
  find("frontier").classList.remove("stale");
}

function showPhi() {
  const { curves, beta } = answers.numbers, points = curves.map(({ u, phi }) => [u, phi]);
  const top = Math.max(...points.map((p) => p[1])), low = Math.max(Math.min(...points.map((p) => p[1])), top - 14 * beta);
  const clipped = points.some(([, v]) => v < low), pad = (top - low) * 0.04 || 0.1;
  draw(find("phi"), {
    curves: [{ key: "phi", name: "Φ", points: points.map(([u, v]) => [u, Math.max(v, low - 2 * pad)]) }],
    alt: `The transform ${transformName(state)} as a function of the quantile, from ${real(points[0][1], 3)} at 0 to ${real(points[240][1], 3)} at 1.`,
    x: { min: 0, max: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: (v) => `${v}`, title: "quantile u" },
    y: { min: low - pad, max: top + pad, ticks: ticksBetween(low, top), text: (v) => real(v, 3) },
  });
  const falls = points.some(([, v], i) => i > 0 && v < points[i - 1][1] - 1e-3 * (top - low) && v > low);
  const why = falls ? " It falls in places: some answers are worth less than worse ones, which leave the choice to others." : "";
  find("phi-caption").textContent = `${transformName(state)}; train on it with β = ${real(beta)}.${clipped ? " Below the frame answers have weights under e⁻¹⁴." : ""}${why}`;
  find("phi").classList.remove("stale");
}

function showDensity() {
  const { curves, reference, label } = answers.numbers, inner = curves.slice(2, -5);
  const most = Math.max(...inner.flatMap(({ f, t }) => [f, t]), ...reference.slice(2, -5)), max = Math.min(Math.max(1.15 * most, 2), 40);
  const ends = curves[240], clipped = Math.max(...curves.flatMap(({ f, t }) => [f, t])) > max;
  draw(find("density"), {
    curves: [
      { key: "f", name: "one response", points: curves.map(({ u, f }) => [u, f]) },
      { key: "t", name: "decoded", points: curves.map(({ u, t }) => [u, t]) },
      { key: "reference", name: "reference, decoded", points: reference.map((v, i) => [i / 240, v]) },
    ],
    alt: `Densities on quantiles 0 to 1. The aligned policy has ${real(curves[120].f, 3)} at one half and ${real(ends.f, 3)} at 1; decoded by ${label} ${real(curves[120].t, 3)} and ${real(ends.t, 3)}.`,
    x: { min: 0, max: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: (v) => `${v}`, title: "quantile u under the reference" },
    y: { min: 0, max, ticks: ticksBetween(0, max), text: (v) => real(v, 3) },
  });
  find("density-caption").textContent = `The reference has density 1 before decoding.${clipped ? ` Cut off above: the policy's density at u = 1 is ${real(ends.f, 3)}, decoded ${real(ends.t, 3)}.` : ""}`;
  find("density").classList.remove("stale");
}

// --- the matrix ---

function showMismatch() {
  const { control, values, now } = family(state), rows = answers.mismatch;
  const name = { n: "N", at_most: "M", steps: "steps" }[control];
  const title = state.procedure === "identity" ? "best of N" : PROCEDURES[state.procedure].title;
  const known = values.flatMap((v) => rows[v] ?? []), low = Math.min(...known, 0.5), high = Math.max(...known, low + 0.01);
  const head = values.map((v) => `<th scope="col"${v === now ? ' class="now"' : ""}>${v}</th>`).join("");
  const body = values.map((v) => {
    const cells = values.map((other, j) => {
      const value = rows[v]?.[j];
      if (value === undefined) return '<td data-value="">—</td>';
      const { background, text } = cellColours(0.06 + (0.94 * (value - low)) / (high - low));
      return `<td class="${v === other ? "own" : ""}" data-value="${value}" style="background:${background};color:${text}">${percent(value, 1).replaceAll(/[ %]/g, "")}</td>`;
    }).join("");
    return `<tr><th scope="row"${v === now ? ' class="now"' : ""}>${v}</th>${cells}</tr>`;
  }).join("");
  find("mismatch").innerHTML = `<caption>Win rate in %, ${title}: rows by the ${name} trained for, columns by the ${name} that decodes both sides, at a KL of ${nats(state.kl)}${state.agreement < 1 ? `, by the gold judge at ρ = ${state.agreement}` : ""}.</caption>
<thead><tr><th scope="col">${name}</th>${head}</tr></thead><tbody>${body}</tbody>`;
  find("mismatch-note").textContent = `Each row's policy has the optimal transform for its ${name}. Framed: trained for what decodes.`;
  find("mismatch").classList.remove("stale");
}

// --- the start ---

const controls = buildControls(find("fields"), changed);

function restart(next) {
  controls.show(next);
  changed(next);
}

find("controls").addEventListener("submit", (event) => event.preventDefault());
find("reset").addEventListener("click", () => restart(start));
find("copy").addEventListener("click", async () => {
  find("command").select();
  try {
    await navigator.clipboard.writeText(find("command").value);
    find("copy").textContent = "Copied";
  } catch {
    find("copy").textContent = "Press Ctrl+C"; // it is selected
  }
  setTimeout(() => { find("copy").textContent = "Copy"; }, 1500);
});
window.addEventListener("hashchange", () => restart(stateFrom(location.hash, start)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (answers.mismatch) showMismatch(); });
let width = 0;
new ResizeObserver(() => {
  if (width !== (width = document.body.clientWidth) && document.documentElement.dataset.settled) {
    showFrontier();
    if (answers.numbers?.curves) { showPhi(); showDensity(); }
  }
}).observe(document.body);
restart(state);
