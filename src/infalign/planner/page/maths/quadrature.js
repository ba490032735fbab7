// Integrals on [0,1] by Gauss–Legendre panels, keeping both u and x = 1 − u with all their digits.
//
// Laws of aligned policies can hold most of their mass within 1e-10 of u = 1, where u itself has no
// digits left. So panels are intervals of the logit y = log(u/(1−u)): a power of u or of 1 − u is an
// exponential in y, a few dozen panels resolve any scale, and every node has u and x in full.

const rules = new Map();

/** Legendre polynomials P_0 … P_n at t. */
function legendre(n, t) {
  const p = [1, t];
  for (let k = 1; k < n; k++) p.push(((2 * k + 1) * t * p[k] - k * p[k - 1]) / (k + 1));
  return p;
}

/** The rule of `order` points on [−1,1]: nodes, weights, integrals from −1 to each node, and the
 * rows that give the last two Legendre coefficients of the interpolating polynomial. */
export function gaussRule(order) {
  if (rules.has(order)) return rules.get(order);
  const nodes = new Float64Array(order), weights = new Float64Array(order);
  for (let i = 0; i < order; i++) {
    let t = -Math.cos((Math.PI * (i + 0.75)) / (order + 0.5)), slope = 1;
    for (let step = 0; step < 100; step++) {
      const p = legendre(order, t);
      slope = (order * (t * p[order] - p[order - 1])) / (t * t - 1);
      const change = p[order] / slope;
      t -= change;
      if (Math.abs(change) < 1e-16) break;
    }
    nodes[i] = t;
    weights[i] = 2 / ((1 - t * t) * slope * slope);
  }
  const basis = Array.from(nodes, (t) => legendre(order, t));
  const running = [], tail = [new Float64Array(order), new Float64Array(order)];
  for (let i = 0; i < order; i++) {
    running.push(new Float64Array(order));
    for (let j = 0; j < order; j++) {
      let sum = ((nodes[i] + 1) * weights[j]) / 2;
      for (let d = 1; d < order; d++) {
        const integral = (basis[i][d + 1] - basis[i][d - 1]) / (2 * d + 1);
        sum += integral * (d + 0.5) * weights[j] * basis[j][d];
      }
      running[i][j] = sum;
    }
    for (let k = 0; k < 2; k++) {
      const d = order - 2 + k;
      tail[k][i] = (d + 0.5) * weights[i] * basis[i][d];
    }
  }
  const barycentric = Float64Array.from(nodes, (t, i) =>
    1 / nodes.reduce((product, other, j) => (i === j ? product : product * (t - other)), 1));
  const rule = { order, nodes, weights, running, tail, barycentric };
  rules.set(order, rule);
  return rule;
}

/** Edges in y; beyond ±44 lie 1e-19 of the reference. The sparse ones are a solver's start. */
export const FINE = Array.from({ length: 45 }, (_, i) => 2 * i - 44);
export const COARSE = [-44, -28, -18, -12, -8, -5, -2.5, 0, 2.5, 5, 8, 12, 18, 28, 44];

/** Quadrature points on panels in y, with running integrals from either end. */
export class Mesh {
  constructor(edges, { breaks = [], order = 16 } = {}) {
    const inner = breaks.filter((b) => b > 0 && b < 1).map((b) => Math.log(b / (1 - b)));
    this.edges = [...new Set([...edges, ...inner])].sort((a, b) => a - b);
    this.rule = gaussRule(order);
    const size = (this.edges.length - 1) * order;
    this.size = size;
    for (const name of ["u", "x", "w", "stretch"]) this[name] = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      const p = Math.floor(i / order), half = (this.edges[p + 1] - this.edges[p]) / 2;
      const y = this.edges[p] + half * (1 + this.rule.nodes[i % order]);
      this.u[i] = 1 / (1 + Math.exp(-y));
      this.x[i] = 1 / (1 + Math.exp(y));
      this.stretch[i] = this.u[i] * this.x[i]; // du/dy
      this.w[i] = half * this.rule.weights[i % order] * this.stretch[i];
    }
  }

  /** Values of a function of (u, x) at the nodes. */
  map(f) {
    return Float64Array.from(this.u, (u, i) => f(u, this.x[i], i));
  }

  integral(values) {
    let sum = 0;
    for (let i = 0; i < this.size; i++) sum += this.w[i] * values[i];
    return sum;
  }

  /** ∫₀ᵘ values, at each node. */
  fromLeft(values) {
    const { order, running, weights } = this.rule, out = new Float64Array(this.size);
    const part = new Float64Array(order);
    let below = 0;
    for (let p = 0; p + 1 < this.edges.length; p++) {
      const half = (this.edges[p + 1] - this.edges[p]) / 2, start = p * order;
      let whole = 0;
      for (let k = 0; k < order; k++) {
        part[k] = half * values[start + k] * this.stretch[start + k];
        whole += weights[k] * part[k];
      }
      for (let k = 0; k < order; k++) {
        const row = running[k];
        let sum = below;
        for (let j = 0; j < order; j++) sum += row[j] * part[j];
        out[start + k] = sum;
      }
      below += whole;
    }
    return out;
  }

  /** ∫ᵤ¹ values, at each node: summed from the right, so that small tails keep their digits. */
  fromRight(values) {
    const { order, running, weights } = this.rule, out = new Float64Array(this.size);
    const part = new Float64Array(order);
    let above = 0;
    for (let p = this.edges.length - 2; p >= 0; p--) {
      const half = (this.edges[p + 1] - this.edges[p]) / 2, start = p * order;
      let whole = 0;
      for (let k = 0; k < order; k++) {
        const i = start + order - 1 - k; // the rule is symmetric: integrate the mirror image
        part[k] = half * values[i] * this.stretch[i];
        whole += weights[k] * part[k];
      }
      for (let k = 0; k < order; k++) {
        const row = running[k];
        let sum = above;
        for (let j = 0; j < order; j++) sum += row[j] * part[j];
        out[start + order - 1 - k] = sum;
      }
      above += whole;
    }
    return out;
  }

  /** Of each panel: the last two Legendre coefficients of what is integrated, times its width. */
  tails(values) {
    const { order, tail } = this.rule;
    return this.edges.slice(1).map((edge, p) => {
      const last = tail.map((row) => row.reduce((sum, r, k) =>
        sum + r * values[p * order + k] * this.stretch[p * order + k], 0));
      return Math.max(Math.abs(last[0]), Math.abs(last[1])) * (edge - this.edges[p]);
    });
  }

  /** With the panels marked true cut in two. */
  halved(rough) {
    const more = this.edges.slice(1).map((edge, p) => (edge + this.edges[p]) / 2);
    return new Mesh([...this.edges, ...more.filter((_, p) => rough[p])], { order: this.rule.order });
  }

  /** The polynomial in y through the values, at u = 1 − x. */
  interpolate(values, u, x) {
    const top = this.edges.length - 1;
    const y = Math.min(Math.max(Math.log(u) - Math.log(x), this.edges[0]), this.edges[top]);
    let low = 0, high = top;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.edges[middle] <= y) low = middle;
      else high = middle;
    }
    const { order, nodes, barycentric } = this.rule;
    const place = (2 * (y - this.edges[low])) / (this.edges[high] - this.edges[low]) - 1;
    let above = 0, below = 0;
    for (let k = 0; k < order; k++) {
      const gap = place - nodes[k];
      if (gap === 0) return values[low * order + k];
      above += (barycentric[k] / gap) * values[low * order + k];
      below += barycentric[k] / gap;
    }
    return above / below;
  }
}

/** A mesh on which the integrand's polynomials have tails below `tolerance` of its integral. */
export function refinedMesh(mesh, integrand, tolerance = 1e-11) {
  for (let round = 0; round < 20; round++) {
    const values = mesh.map(integrand), limit = tolerance * Math.abs(mesh.integral(values));
    const rough = mesh.tails(values).map((tail) => tail > limit);
    if (!rough.includes(true) || mesh.edges.length > 300) break;
    mesh = mesh.halved(rough);
  }
  return mesh;
}
