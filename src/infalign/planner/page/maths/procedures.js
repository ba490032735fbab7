// Procedures: what is done at inference, as an operator on laws over quantiles.
//
// Each has `decoded(mesh, f)`, the density t of T(F) at the nodes, and `variation(mesh, f, judge)`,
// the first variation ψ of W = 1 − ∫ loss dT(F): W[f + δf] − W[f] = ∫ ψ δf. `judge` gives, at the
// nodes, `loss` (the chance to lose to the reference's answer) and `slope` = −d loss/du. Where it is
// known, `curvature` gives for a node j how ψ changes per mass added there.
import { logGamma } from "./special.js";

const power = (base, exponent) => (exponent === 0 ? 1 : Math.pow(base, exponent));
const times = (a, b) => a.map((v, i) => v * b[i]);

/** A rule that sees ranks only: t = g(F)·f, ψ = −∫ᵤ¹ g(F) dh. `density` is g as a function of F and
 * 1 − F, and `slope` its total derivative along F. */
function rankRule(density, slope, more) {
  return {
    breaks: [], density, slope, ...more,
    decoded(mesh, f) {
      const below = mesh.fromLeft(f), above = mesh.fromRight(f);
      return f.map((v, i) => v * density(below[i], above[i]));
    },
    variation(mesh, f, judge) {
      const below = mesh.fromLeft(f), above = mesh.fromRight(f);
      return mesh.fromRight(f.map((_, i) => -density(below[i], above[i]) * judge.slope[i]));
    },
    curvature(mesh, f, judge) {
      const below = mesh.fromLeft(f), above = mesh.fromRight(f);
      const bend = f.map((_, i) => -slope(below[i], above[i]) * judge.slope[i]);
      const unit = new Float64Array(mesh.size);
      return (j) => {
        unit[j] = 1 / mesh.w[j];
        // Mass at u_j raises F above it, or where mass is counted from the top lowers 1 − F below:
        // the same for moves that keep the mass. The first keeps digits for best-of, as needed there.
        const grown = mesh.fromLeft(unit);
        unit[j] = 0;
        return mesh.fromRight(grown.map((v, i) => v * bend[i]));
      };
    },
  };
}

/** One response: T(F) = F. */
export function single() {
  return rankRule(() => 1, () => 0, { label: "one response", candidates: () => 1, extreme: 0 });
}

/** The best of n: G(v) = vⁿ. */
export function bestOf(n) {
  return rankRule((v) => n * power(v, n - 1), (v) => (n > 1 ? n * (n - 1) * power(v, n - 2) : 0),
    { label: `best-of-${n}`, candidates: () => n, extreme: 1, n });
}

/** The worst of n: G(v) = 1 − (1−v)ⁿ. */
export function worstOf(n) {
  return rankRule((v, s) => n * power(s, n - 1),
    (v, s) => (n > 1 ? -n * (n - 1) * power(s, n - 2) : 0),
    { label: `worst-of-${n}`, candidates: () => n, extreme: -1, n });
}

/** The median of n; for even n one of the two middle ranks by a fair coin. */
export function medianOf(n) {
  const ranks = [Math.floor((n - 1) / 2) + 1, Math.floor(n / 2) + 1];
  const scales = ranks.map((r) => Math.exp(logGamma(n + 1) - logGamma(r) - logGamma(n - r + 1)));
  const one = (k, v, s) => scales[k] * power(v, ranks[k] - 1) * power(s, n - ranks[k]);
  const slope = (k, v, s) => {
    const a = ranks[k] - 1, b = n - ranks[k];
    const up = a > 0 ? a * power(v, a - 1) * power(s, b) : 0;
    return scales[k] * (up - (b > 0 ? b * power(v, a) * power(s, b - 1) : 0));
  };
  return rankRule((v, s) => (one(0, v, s) + one(1, v, s)) / 2,
    (v, s) => (slope(0, v, s) + slope(1, v, s)) / 2,
    { label: `median-of-${n}`, candidates: () => n, extreme: n === 1 ? 0 : undefined });
}

/** The best of 1 + Poisson(mean − 1) responses: G(v) = v·e^{−μ(1−v)}. */
export function bestOfPoisson(mean) {
  const mu = mean - 1;
  return rankRule((v, s) => Math.exp(-mu * s) * (1 + mu * v),
    (v, s) => mu * Math.exp(-mu * s) * (2 + mu * v),
    { label: `best-of-Poisson(${mean})`, candidates: () => mean });
}

/** Draw until a response reaches quantile φ, at most m times; the last one is answered anyway. */
export function rewind(threshold, m) {
  const below = (mesh, f) => {
    let q = 0;
    for (let i = 0; i < mesh.size; i++) if (mesh.u[i] < threshold) q += mesh.w[i] * f[i];
    return q;
  };
  const factors = (q) => {
    let b = 0, slope = 0;
    for (let k = m - 1; k >= 0; k--) [b, slope] = [b * q + 1, slope * q + b];
    return { a: power(q, m - 1), b, da: m > 1 ? (m - 1) * power(q, m - 2) : 0, db: slope };
  };
  return {
    label: `rewind below ${threshold}, at most ${m}`,
    breaks: threshold > 0 && threshold < 1 ? [threshold] : [],
    candidates: (mesh, f) => factors(below(mesh, f)).b,
    decoded(mesh, f) {
      const { a, b } = factors(below(mesh, f));
      return f.map((v, i) => (mesh.u[i] < threshold ? a : b) * v);
    },
    variation(mesh, f, judge) {
      const { a, b, da, db } = factors(below(mesh, f));
      let lostBelow = 0, lostAbove = 0;
      for (let i = 0; i < mesh.size; i++) {
        if (mesh.u[i] < threshold) lostBelow += mesh.w[i] * f[i] * judge.loss[i];
        else lostAbove += mesh.w[i] * f[i] * judge.loss[i];
      }
      const shared = da * lostBelow + db * lostAbove;
      return f.map((_, i) =>
        mesh.u[i] < threshold ? -a * judge.loss[i] - shared : -b * judge.loss[i]);
    },
  };
}

/** Among n responses one is drawn with weights e^{u/λ}.
 *
 * With c(u) = e^{(u−1)/λ} and L(s) = ∫ f e^{−sc}: t(u) = n f ∫₀^∞ c e^{−sc} L^{n−1} ds, an integral
 * by the trapezoid rule in log s, whose error falls like e^{−π²/step}. */
export function softBestOf(n, temperature) {
  const step = 0.3, low = -19 - Math.log(n), high = 4 + 1 / temperature;
  const size = Math.ceil((high - low) / step);
  const s = Float64Array.from({ length: size }, (_, k) => Math.exp(low + k * step));
  let kept = null;
  const tables = (mesh) => {
    if (kept?.mesh !== mesh) {
      const c = mesh.map((u, x) => Math.exp(-x / temperature));
      kept = { mesh, c, decay: Array.from(s, (v) => c.map((ci) => Math.exp(-v * ci))) };
    }
    return kept;
  };
  const transformed = (mesh, values, decay) => Float64Array.from(decay, (row) => {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[i] * row[i];
    return sum;
  });
  const weighted = (mesh, values) => values.map((v, i) => v * mesh.w[i]);
  return {
    label: `soft best-of-${n}`, breaks: [], candidates: () => n,
    decoded(mesh, f) {
      const { c, decay } = tables(mesh), mass = transformed(mesh, weighted(mesh, f), decay);
      const sum = new Float64Array(mesh.size);
      for (let k = 0; k < size; k++) {
        const factor = n * s[k] * step * power(mass[k], n - 1), row = decay[k];
        if (factor > 1e-300) for (let i = 0; i < sum.length; i++) sum[i] += factor * row[i];
      }
      return sum.map((v, i) => v * c[i] * f[i]);
    },
    variation(mesh, f, judge) {
      const { c, decay } = tables(mesh), measure = weighted(mesh, f);
      const mass = transformed(mesh, measure, decay);
      const won = transformed(mesh, measure.map((v, i) => -v * c[i] * judge.loss[i]), decay);
      const own = new Float64Array(mesh.size), others = new Float64Array(mesh.size);
      for (let k = 0; k < size; k++) {
        const factor = n * s[k] * step, row = decay[k];
        const a = factor * power(mass[k], n - 1);
        const b = n > 1 ? factor * (n - 1) * won[k] * power(mass[k], n - 2) : 0;
        for (let i = 0; i < own.length; i++) { own[i] += a * row[i]; others[i] += b * row[i]; }
      }
      return own.map((v, i) => -v * c[i] * judge.loss[i] + others[i]);
    },
    curvature(mesh, f, judge) {
      const { c, decay } = tables(mesh), measure = weighted(mesh, f);
      const worth = c.map((v, i) => -v * judge.loss[i]);
      const mass = transformed(mesh, measure, decay);
      const won = transformed(mesh, times(measure, worth), decay);
      const pair = mass.map((m, k) => (n > 1 ? n * (n - 1) * s[k] * step * power(m, n - 2) : 0));
      const triple = mass.map((m, k) =>
        n > 2 ? n * (n - 1) * (n - 2) * s[k] * step * won[k] * power(m, n - 3) : 0);
      return (j) => {
        const a = new Float64Array(mesh.size), b = new Float64Array(mesh.size);
        for (let k = 0; k < size; k++) {
          const row = decay[k], p = pair[k] * row[j], t = triple[k] * row[j];
          if (p === 0) continue;
          for (let i = 0; i < a.length; i++) { a[i] += p * row[i]; b[i] += t * row[i]; }
        }
        return a.map((v, i) => v * (worth[i] + worth[j]) + b[i]);
      };
    },
  };
}

/** ∫ of values against ω(v)/ω(u) below u, and against ω(u)/ω(v) above, for ω = u^power: kernels in
 * [0,1] that may die within a panel, so each panel integrates its polynomial against them. */
function discounted(mesh, power) {
  const { edges, rule } = mesh, { order, nodes, weights, barycentric } = rule;
  const logOmega = (y) => -power * (y > 0 ? Math.log1p(Math.exp(-y)) : Math.log1p(Math.exp(y)) - y);
  const basis = (t) => {
    const near = nodes.findIndex((node) => node === t);
    if (near >= 0) return Float64Array.from(nodes, (_, j) => (j === near ? 1 : 0));
    const terms = nodes.map((node, j) => barycentric[j] / (t - node));
    const sum = terms.reduce((a, b) => a + b, 0);
    return terms.map((v) => v / sum);
  };
  const panels = edges.slice(1).map((edge, p) => {
    const half = (edge - edges[p]) / 2, at = (t) => logOmega(edges[p] + half * (1 + t));
    const rowFrom = (k, end, sign) => {
      // From node k towards the panel's end, no farther than the kernel reaches.
      const here = at(nodes[k]), row = new Float64Array(order);
      let reach = Math.abs(end - nodes[k]);
      while (Math.abs(at(nodes[k] + Math.sign(end) * reach) - here) > 45) reach /= 2;
      for (let q = 0; q < order; q++) {
        const t = nodes[k] + (Math.sign(end) * reach * (1 + nodes[q])) / 2;
        const weight = (half * reach * weights[q] * Math.exp(sign * (at(t) - here))) / 2;
        basis(t).forEach((v, j) => { row[j] += weight * v; });
      }
      return row;
    };
    const shrink = (k, edge, sign) => Math.exp(sign * (logOmega(edge) - at(nodes[k])));
    const indices = Array.from(nodes.keys());
    return {
      down: indices.map((k) => rowFrom(k, -1, 1)), fromBelow: indices.map((k) => shrink(k, edges[p], 1)),
      up: indices.map((k) => rowFrom(k, 1, -1)), fromAbove: indices.map((k) => shrink(k, edge, -1)),
      across: Math.exp(logOmega(edges[p]) - logOmega(edge)),
      whole: { down: weightsTo(half, at, 1, 1), up: weightsTo(half, at, -1, -1) },
    };
  });
  function weightsTo(half, at, end, sign) {
    const row = new Float64Array(order), here = at(end);
    let reach = 2;
    while (Math.abs(at(end - Math.sign(end) * reach) - here) > 45) reach /= 2;
    for (let q = 0; q < order; q++) {
      const t = end - (Math.sign(end) * reach * (1 + nodes[q])) / 2;
      const weight = (half * reach * weights[q] * Math.exp(sign * (at(t) - here))) / 2;
      basis(t).forEach((v, j) => { row[j] += weight * v; });
    }
    return row;
  }
  const along = (values, order_, carryOf, rowsOf, wholeOf) => {
    const out = new Float64Array(mesh.size), part = new Float64Array(order);
    let carried = 0;
    for (const p of order_) {
      const panel = panels[p], start = p * order, rows = rowsOf(panel), share = carryOf(panel);
      for (let j = 0; j < order; j++) part[j] = values[start + j] * mesh.stretch[start + j];
      let whole = carried * panel.across;
      for (let j = 0; j < order; j++) whole += wholeOf(panel)[j] * part[j];
      for (let k = 0; k < order; k++) {
        let sum = carried * share[k];
        for (let j = 0; j < order; j++) sum += rows[k][j] * part[j];
        out[start + k] = sum;
      }
      carried = whole;
    }
    return out;
  };
  const rising = Array.from(panels.keys()), falling = [...rising].reverse();
  return {
    below: (v) => along(v, rising, (p) => p.fromBelow, (p) => p.down, (p) => p.whole.down),
    above: (v) => along(v, falling, (p) => p.fromAbove, (p) => p.up, (p) => p.whole.up),
  };
}

/** `steps` steps of Metropolis–Hastings with independent proposals from the policy, towards
 * f(u)·ω(u) with ω = u^{n−1}: best-of-n of the reference, imitated. */
export function metropolisHastings(steps, n) {
  let kept = null;
  const kernelOn = (mesh) => {
    if (kept?.mesh !== mesh) kept = { mesh, ...discounted(mesh, n - 1) };
    return kept;
  };
  /** Chance to arrive at u, per density f(u) there, when the state has density p. */
  const arrivals = (mesh, p) => {
    const low = mesh.fromLeft(p), high = kernelOn(mesh).above(p);
    return low.map((v, i) => v + high[i]);
  };
  const refusal = (mesh, f) => {
    const all = mesh.fromLeft(f), taken = kernelOn(mesh).below(f);
    return all.map((v, i) => v - taken[i]);
  };
  const states = (mesh, f, stay) => {
    const out = [f];
    for (let k = 0; k < steps; k++) {
      const p = out[k], come = arrivals(mesh, p);
      out.push(p.map((v, i) => f[i] * come[i] + v * stay[i]));
    }
    return out;
  };
  return {
    label: `Metropolis–Hastings, ${steps} steps`, breaks: [], candidates: () => steps + 1,
    decoded(mesh, f) {
      return states(mesh, f, refusal(mesh, f))[steps];
    },
    variation(mesh, f, judge) {
      const stay = refusal(mesh, f), path = states(mesh, f, stay), kernel = kernelOn(mesh);
      const psi = new Float64Array(mesh.size);
      let worth = judge.loss.map((v) => -v);
      for (let k = steps - 1; k >= 0; k--) {
        const p = path[k], come = arrivals(mesh, p), held = times(worth, p);
        const later = mesh.fromRight(held), weighed = kernel.above(held);
        const passed = times(worth, f), ahead = mesh.fromRight(passed), behind = kernel.below(passed);
        for (let i = 0; i < psi.length; i++) psi[i] += worth[i] * come[i] + later[i] - weighed[i];
        worth = worth.map((v, i) => ahead[i] + behind[i] + v * stay[i]);
      }
      return psi.map((v, i) => v + worth[i]);
    },
  };
}
