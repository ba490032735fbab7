// How numbers and states read: percent, β, the command line, the URL.
import { PROCEDURES, START } from "../maths/answers.js";

/** A probability as percent; what only rounds to certainty is said to be more than the last step. */
export function percent(p, digits = 2) {
  if (!Number.isFinite(p)) return "—";
  const text = (100 * p).toFixed(digits), whole = (100).toFixed(digits);
  return text === whole && p < 1 - 1e-12 ? `> ${(100 - 10 ** -digits).toFixed(digits)} %` : `${text} %`;
}

/** A KL with its unit. */
export function nats(kl) {
  return `${kl} ${kl === 1 ? "nat" : "nats"}`;
}

/** A number to so many significant digits, 1.2e-9 where it is small. */
export function real(x, digits = 4) {
  if (!Number.isFinite(x)) return "—";
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5)) return x.toExponential(digits - 2);
  return String(Number(x.toPrecision(digits)));
}

export const TRANSFORMS = {
  identity: "identity: calibration alone", log: "log", exponential: "exponential",
  optimal: "optimal", gold: "optimal for the gold judge",
};

/** The transform's short name. */
export function transformName({ transform, t }) {
  return transform === "exponential" ? `exp(${t})` : { gold: "optimal for gold" }[transform] ?? transform;
}

/** The procedure as the command line reads it. */
function spelled(s) {
  return {
    best_of_poisson: `'best_of_poisson(${s.n})'`,
    soft_best_of_n: `'soft_best_of_n(${s.n}, ${s.temperature})'`,
    rewind_and_repeat: `'rewind_and_repeat(${s.threshold}, ${s.at_most})'`,
    metropolis_hastings: s.n > 1 ? `'metropolis_hastings(${s.steps}, n=${s.n})'` : "identity",
    identity: "identity",
  }[s.procedure] ?? `${s.procedure} --n ${s.n}`;
}

/** The `infalign plan` command that answers this state. */
export function commandOf(state) {
  const parts = [`infalign plan --procedure ${spelled(state)} --kl ${state.kl}`];
  if (state.transform !== "optimal" && state.transform !== "gold") {
    parts.push(`--transform ${state.transform === "exponential" && state.t !== 0 ? `'exp(${state.t})'`
      : state.transform === "log" ? "log" : "identity"}`);
  }
  // One question to a command: the table by a gold judge, or what K rollouts cost.
  if (state.agreement < 1) parts.push(`--agreement ${state.agreement}`);
  else if (state.k > 0) parts.push(`--rollouts ${state.k}`);
  return parts.join(" ");
}

/** The state as a URL hash, and back; what is not there, unknown or out of range stays as it was. */
export function hashOf(state) {
  return "#" + Object.entries(state).filter(([name]) => isShown(state, name))
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

const RANGES = { n: [1, 128], kl: [0.01, 4], t: [-20, 40], k: [0, 4096], agreement: [0, 1],
  temperature: [0.01, 10], threshold: [0, 0.99], at_most: [1, 128], steps: [0, 64] };
const WHOLE = ["n", "k", "at_most", "steps"];

export function stateFrom(hash, start) {
  const state = { ...start };
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const value = Number(text), range = RANGES[name];
    if (name === "procedure" && Object.hasOwn(PROCEDURES, text)) state.procedure = text;
    if (name === "transform" && Object.hasOwn(TRANSFORMS, text)) state.transform = text;
    if (range && text !== "" && value >= range[0] && value <= range[1] &&
      (!WHOLE.includes(name) || Number.isInteger(value))) state[name] = value;
  }
  if (state.k > 0 && state.k < 2) state.k = START.k;
  return settled(state);
}

/** A state that makes sense: no optimum for a gold judge who is not another one, or knows nothing. */
export function settled(state) {
  const lost = state.transform === "gold" && (state.agreement === 1 || state.agreement === 0);
  return lost ? { ...state, transform: "optimal" } : state;
}

/** Whether a control matters for the state. */
export function isShown(state, name) {
  if (name === "t") return state.transform === "exponential";
  const own = ["n", "temperature", "threshold", "at_most", "steps"];
  return !own.includes(name) || PROCEDURES[state.procedure].controls.includes(name);
}
