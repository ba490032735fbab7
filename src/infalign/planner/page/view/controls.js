// The controls: one labelled field for each part of the state, only those that matter shown.
import { PROCEDURES } from "../maths/answers.js";
import { TRANSFORMS, isShown, nats, real, settled } from "./words.js";

const rounded = (x) => Number(x.toPrecision(3));
const geometric = (low, high, steps) =>
  Array.from({ length: steps + 1 }, (_, i) => rounded(low * (high / low) ** (i / steps)));
const even = (low, high, step) =>
  Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => rounded(low + i * step));
const ROLLOUTS = [0, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
const KLS = [...new Set([...geometric(0.05, 4, 73), 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3])].sort((a, b) => a - b);

/** Sliders: the values they run through, what they are called, how a value reads. */
const SLIDERS = {
  n: { values: even(1, 64, 1), label: "N", text: (v) => `${v}`, spoken: (v) => `${v} responses`,
    hint: (s) => ({ best_of_poisson: "Expected number of responses for an answer.",
      metropolis_hastings: "The chain leads towards best of N." })[s.procedure] ?? "Responses sampled for an answer." },
  temperature: { values: geometric(0.02, 2, 40), label: "λ", text: (v) => real(v, 3),
    spoken: (v) => `temperature ${v}`, hint: () => "Weights e^(u/λ): small is best of N, large is any." },
  threshold: { values: even(0, 0.99, 0.01), label: "Threshold φ", text: (v) => v.toFixed(2),
    spoken: (v) => `quantile ${v}`, hint: () => "Answers below this quantile are drawn again." },
  at_most: { values: even(1, 32, 1), label: "At most M draws", text: (v) => `${v}`,
    spoken: (v) => `${v} draws`, hint: () => "The last draw is answered whatever it is." },
  steps: { values: even(0, 16, 1), label: "Steps", text: (v) => `${v}`, spoken: (v) => `${v} steps`,
    hint: () => "Each step proposes one more response." },
  kl: { values: KLS, label: "KL", text: nats, spoken: nats,
    hint: () => "How far the policy may move from the reference." },
  t: { values: even(-20, 40, 1), label: "Exponent t", text: (v) => `${v}`, spoken: (v) => `${v}`,
    hint: () => "Φ = (e^(tu) − 1)/(e^t − 1): above 0 it rewards the top, below it punishes the bottom; 0 is identity." },
  k: { values: ROLLOUTS, label: "Rollouts K", text: (v) => (v === 0 ? "∞" : `${v}`),
    spoken: (v) => (v === 0 ? "infinitely many rollouts" : `${v} rollouts`),
    hint: () => "Reference answers per prompt that calibrate the quantiles; ∞ is perfect calibration." },
  agreement: { values: even(0, 1, 0.01), label: "Agreement ρ", text: (v) => v.toFixed(2),
    spoken: (v) => (v === 1 ? "1, the same reward judges" : `rank correlation ${v}`),
    hint: () => "Between the reward that selects and the gold reward that judges; 1: the same reward." },
};
const FIELDS = ["procedure", "n", "temperature", "threshold", "at_most", "steps", "kl", "transform", "t", "k", "agreement"];

/** Build the fields; `changed(state)` is called on every move. Returns {show(state)}. */
export function buildControls(place, changed) {
  let state = null;
  const parts = {};
  const change = (name, value) => { state = settled({ ...state, [name]: value }); show(state); changed(state); };
  for (const name of FIELDS) {
    const slider = SLIDERS[name], field = document.createElement("div");
    field.className = "field";
    const control = document.createElement(slider ? "input" : "select");
    control.id = name;
    const label = Object.assign(document.createElement("label"), { htmlFor: name });
    label.textContent = slider?.label ?? { procedure: "Procedure", transform: "Transform" }[name];
    const top = Object.assign(document.createElement("div"), { className: "top" });
    top.append(label);
    field.append(top, control);
    parts[name] = { field, control };
    if (slider) {
      Object.assign(control, { type: "range", min: 0, max: slider.values.length - 1, step: 1 });
      const output = document.createElement("output"), hint = document.createElement("p");
      output.htmlFor = name;
      hint.className = "hint";
      control.setAttribute("aria-describedby", hint.id = `${name}-hint`);
      top.append(output);
      field.append(hint);
      Object.assign(parts[name], { output, hint });
      control.addEventListener("input", () => change(name, slider.values[control.value]));
    } else {
      const titles = name === "procedure" ? Object.entries(PROCEDURES).map(([k, p]) => [k, p.title]) : Object.entries(TRANSFORMS);
      for (const [value, text] of titles) control.add(new Option(text, value));
      control.addEventListener("change", () => change(name, control.value));
    }
    place.append(field);
  }
  function show(next) {
    state = next;
    for (const name of FIELDS) {
      const slider = SLIDERS[name], { field, control, output, hint } = parts[name], value = state[name];
      field.hidden = !isShown(state, name);
      if (!slider) { control.value = value; continue; }
      const gaps = slider.values.map((v) => Math.abs(v - value));
      control.value = gaps.indexOf(Math.min(...gaps));
      control.setAttribute("aria-valuetext", slider.spoken(value));
      control.dataset.value = value;
      output.textContent = slider.text(value);
      hint.textContent = slider.hint(state);
    }
    const gold = parts.transform.control.querySelector("[value=gold]");
    gold.disabled = gold.hidden = !(state.agreement > 0 && state.agreement < 1);
  }
  return { show };
}
