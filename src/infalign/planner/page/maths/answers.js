// What a plan says: from the state of the controls to numbers, curves and the mismatch matrix.
import { single, bestOf, worstOf, medianOf, bestOfPoisson, rewind, softBestOf, metropolisHastings }
  from "./procedures.js";
import { Law, tiltedTo, transformOf, uniformOn } from "./laws.js";
import { powerLaw, powerPoint } from "./power.js";
import { stationaryLaw } from "./stationary.js";
import { winRate } from "./judge.js";
import { finiteWinRate, rankMeans } from "./finite.js";

/** The procedures: their name for the command line, what a person reads, and their own controls.
 * `family` is the control that the mismatch matrix runs through. */
export const PROCEDURES = {
  identity: { title: "none: one response", controls: [], family: null },
  best_of_n: { title: "best of N", controls: ["n"], family: "n" },
  worst_of_n: { title: "worst of N", controls: ["n"], family: "n" },
  median_of_n: { title: "median of N", controls: ["n"], family: "n" },
  best_of_poisson: { title: "best of Poisson many", controls: ["n"], family: "n" },
  soft_best_of_n: { title: "soft best of N", controls: ["n", "temperature"], family: "n" },
  rewind_and_repeat: { title: "rewind and repeat", controls: ["threshold", "at_most"], family: "at_most" },
  metropolis_hastings: { title: "Metropolis–Hastings", controls: ["steps", "n"], family: "steps" },
};

export const START = {
  procedure: "best_of_n", n: 4, kl: 1, transform: "optimal", t: 10, k: 0, agreement: 1,
  temperature: 0.1, threshold: 0.5, at_most: 4, steps: 4,
};

/** The procedure that a state describes; one that only ever draws one response is `single`. */
export function procedureOf(state) {
  const { procedure, n, temperature, threshold, at_most: most, steps } = state;
  const [made, key] = {
    identity: () => [single(), []],
    best_of_n: () => [bestOf(n), [n]],
    worst_of_n: () => [worstOf(n), [n]],
    median_of_n: () => [medianOf(n), [n]],
    best_of_poisson: () => [bestOfPoisson(n), [n]],
    soft_best_of_n: () => [softBestOf(n, temperature), [n, temperature]],
    rewind_and_repeat: () => [rewind(threshold, most), [threshold, most]],
    metropolis_hastings: () => [metropolisHastings(steps, n), [steps, n]],
  }[procedure]();
  const alone = { identity: true, rewind_and_repeat: most === 1 || threshold === 0,
    metropolis_hastings: steps === 0 || n === 1 }[procedure] ?? n === 1;
  const kind = alone ? Object.assign(single(), { label: made.label }) : made;
  return Object.assign(kind, { key: alone ? "single" : `${procedure}:${key}` });
}

/** The law that wins most at a KL by a judge, with its `beta` and `winRate`; null where none is found. */
export function optimum(procedure, agreement, kl) {
  if (agreement === 0) return null;
  if (agreement === 1 && procedure.extreme === 0) {
    const law = tiltedTo(transformOf("identity"), kl);
    return Object.assign(law, { winRate: winRate(law, procedure) });
  }
  if (agreement === 1 && procedure.extreme) {
    const point = powerPoint(procedure.n, procedure.extreme, kl);
    return point && Object.assign(powerLaw(procedure.n, procedure.extreme, kl), { winRate: point.winRate });
  }
  return stationaryLaw(procedure, agreement, kl);
}

/** The law of the chosen transform at the KL; null where its optimum is not found. */
export function lawOf(state, procedure) {
  if (state.transform === "optimal") return optimum(procedure, 1, state.kl);
  if (state.transform === "gold") return optimum(procedure, state.agreement, state.kl);
  return tiltedTo(transformOf(state.transform, state.t), state.kl, procedure.breaks);
}

/** The numbers of the chosen transform, and its curves; {missing: true} where its optimum is not found. */
export function numbers(state) {
  const procedure = procedureOf(state), law = lawOf(state, procedure), { agreement } = state;
  if (law === null) return { label: procedure.label, missing: true };
  const decoded = state.transform === "optimal" ? law.winRate : winRate(law, procedure);
  const judged = agreement === 1 ? decoded
    : state.transform === "gold" ? law.winRate : winRate(law, procedure, agreement);
  return {
    label: procedure.label, beta: law.beta, decoded, ordinary: winRate(law, single()), gold: judged,
    candidates: procedure.candidates(law.mesh, law.f), curves: curves(state, procedure, law),
  };
}

/** The largest win rates any policy has at this KL, by either judge; NaN where not found. */
export function limits(state) {
  const procedure = procedureOf(state), { agreement, kl } = state;
  const limit = optimum(procedure, 1, kl)?.winRate ?? NaN;
  if (agreement === 1) return { limit, goldLimit: limit };
  return { limit, goldLimit: agreement === 0 ? 0.5 : optimum(procedure, agreement, kl)?.winRate ?? NaN };
}

/** Φ, f and the decoded density on an even grid of [0,1], for drawing. */
function curves(state, procedure, law) {
  const size = 240, decoded = procedure.decoded(law.mesh, law.f);
  const named = ["identity", "log", "exponential"].includes(state.transform);
  const phi = named ? transformOf(state.transform, state.t).phi : null;
  const top = named ? 0 : law.logDensityAt(1 - 1e-15, 1e-15);
  const points = [];
  for (let i = 0; i <= size; i++) {
    const at = i === 0 ? 1e-9 : i === size ? 1 - 1e-9 : i / size, x = i === size ? 1e-9 : 1 - at;
    const logf = law.logDensityAt(at, x);
    points.push({ u: i / size, f: Math.exp(logf), t: Math.max(law.mesh.interpolate(decoded, at, x), 0),
      phi: named ? phi(at, x) : law.beta * (logf - top) });
  }
  return points;
}

/** Win rate with K calibration rollouts: {winRate}, {largest} out of reach, or {reason}. */
export function withRollouts(state) {
  const procedure = procedureOf(state);
  if (!procedure.density) return { reason: "computed for procedures that pick by rank" };
  if (state.agreement === 0) return { reason: "a judge that knows nothing" };
  const law = lawOf(state, procedure);
  if (law === null) return { reason: "needs the optimum, which was not found here" };
  const named = ["identity", "log", "exponential"].includes(state.transform);
  const top = named ? 0 : law.logDensityAt(1 - 1e-15, 1e-15);
  const fallen = named ? transformOf(state.transform, state.t).fallen
    : (u, x) => law.beta * (law.logDensityAt(u, x) - top);
  const most = state.procedure === "best_of_poisson" ? 48 : procedure.candidates();
  const steep = state.transform !== "exponential" || Math.abs(state.t) > 1e-9;
  const kind = !steep || (procedure.extreme === 0 && state.transform === "optimal") ? "identity" : state.transform;
  return finiteWinRate(procedure, most, rankMeans(kind, { fallen, t: state.t }, state.k), state.k, state.kl, state.agreement);
}

/** KLs of the frontier's points: dense where it bends. */
export const FRONTIER_KLS = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.4, 1.9, 2.5, 3.2, 4];

/** One point of a frontier at a KL: win rate by the state's judge, for the limit with its slope β. */
export function frontierPoint(state, transform, kl) {
  const procedure = procedureOf(state), { agreement } = state;
  if (transform === "limit") {
    if (agreement === 0) return { kl, winRate: 0.5, slope: 0 };
    if (agreement === 1 && procedure.extreme) {
      const point = powerPoint(procedure.n, procedure.extreme, kl);
      return point && { kl, winRate: point.winRate, slope: point.beta };
    }
    const law = optimum(procedure, agreement, kl);
    return law && { kl, winRate: law.winRate, slope: law.beta };
  }
  const law = lawOf({ ...state, transform, kl }, procedure);
  return law && { kl, winRate: winRate(law, procedure, agreement) };
}

/** Members of the procedure's family for the matrix, the current one among them. */
export function family(state) {
  const { family: control } = PROCEDURES[state.procedure];
  const values = { n: [1, 2, 4, 8, 16, 32], at_most: [1, 2, 4, 8, 16], steps: [0, 1, 2, 4, 8] }[control ?? "n"];
  const now = control === null ? 1 : state[control];
  return { control: control ?? "n", values: [...new Set([...values, now])].sort((a, b) => a - b), now,
    member: (value) => control === null
      ? { ...state, procedure: "best_of_n", n: value } : { ...state, [control]: value } };
}

/** A row of the matrix: trained for what wins most with one member at the KL, decoded with each (both
 * sides), by the state's judge. */
export function mismatchRow(state, value) {
  const { values, member } = family(state), trained = procedureOf(member(value));
  if (state.agreement === 0) return values.map(() => 0.5);
  const law = optimum(trained, state.agreement, state.kl);
  return law && values.map((other) => {
    const decoder = procedureOf(member(other));
    return other === value ? law.winRate
      : winRate(onBreaks(law, decoder), decoder, state.agreement);
  });
}

/** The law on a mesh that ends at the procedure's breaks too. */
function onBreaks(law, procedure) {
  if (procedure.breaks.length === 0) return law;
  const Mesh = law.mesh.constructor;
  const mesh = new Mesh(law.mesh.edges, { breaks: procedure.breaks, order: law.mesh.rule.order });
  return new Law(mesh, mesh.map((u, x) => law.logDensityAt(u, x)), law.beta);
}

/** The reference's own density decoded by the procedure, on an even grid, for comparison. */
export function referenceDecoded(state) {
  const procedure = procedureOf(state), mesh = tiltedTo(transformOf("identity"), 0.5, procedure.breaks).mesh;
  const t = procedure.decoded(mesh, uniformOn(mesh).f);
  return Array.from({ length: 241 }, (_, i) => {
    const u = Math.min(Math.max(i / 240, 1e-9), 1 - 1e-9);
    return Math.max(mesh.interpolate(t, u, i === 240 ? 1e-9 : 1 - u), 0);
  });
}
