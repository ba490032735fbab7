// Finite K: what calibrating with K rollouts, and no more, leaves of a win rate. Rank rules only.
//
// After K rollouts a response is known by its rank r among them, so its training reward is the
// posterior mean Φ̄_K(r) of Φ and the policy is a step function. The average is over the same hashed
// draws of the K quantiles with the same weights as in Python (quantile/finite), so the numbers agree.
import { FINE, Mesh, gaussRule } from "./quadrature.js";
import { logGamma, normalQuantile, root, solveLinear } from "./special.js";
import { goldCurves } from "./judge.js";

const NODES = 24, CELLS = 4096;

/** How many draws: a draw costs K pieces, and few rollouts differ most from one draw to the next. */
function drawsFor(k) {
  return Math.max(64, Math.min(Math.floor(2 ** 20 / k), 400), Math.min(Math.floor(2 ** 18 / k), 8192));
}

/** lowbias32: a bijection of 32-bit integers that scatters neighbours. */
export function hashed(x) {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

let drawn = { k: NaN };

/** The draws: gaps between the K sorted quantiles of each, row by row, exponentials over their sum; and
 * weights that make the means of u, u² and u³ over all rollouts exact. */
function worldsOf(k) {
  if (drawn.k === k) return drawn;
  const draws = drawsFor(k), size = k + 1, gaps = new Float64Array(draws * size), ofSeed = hashed(1);
  const ofColumn = Uint32Array.from({ length: size }, (_, j) => hashed(j)), features = [];
  for (let d = 0; d < draws; d++) {
    const ofRow = hashed((d + ofSeed) >>> 0), moments = [1, -1 / 2, -1 / 3, -1 / 4];
    let sum = 0, u = 0;
    for (let j = 0; j < size; j++) {
      sum += gaps[d * size + j] = -Math.log((hashed((ofColumn[j] ^ ofRow) >>> 0) + 0.5) / 2 ** 32);
    }
    for (let j = 0; j < size; j++) {
      u += gaps[d * size + j] /= sum;
      if (j < k) for (let p = 1; p <= 3; p++) moments[p] += u ** p / k;
    }
    features.push(moments);
  }
  drawn = { k, draws, gaps, shares: balanced(features) };
  return drawn;
}

/** Weights that sum to 1 and balance the other features to 0, as even as can be. */
function balanced(features) {
  const square = Array.from({ length: 4 }, () => new Float64Array(4)), missing = new Float64Array(4);
  for (const row of features) {
    for (let i = 0; i < 4; i++) {
      missing[i] -= row[i] / features.length;
      for (let j = 0; j < 4; j++) square[i][j] += row[i] * row[j];
    }
  }
  missing[0] += 1;
  const factors = solveLinear(square, missing);
  return Float64Array.from(features, (row) =>
    1 / features.length + row.reduce((sum, v, i) => sum + v * factors[i], 0));
}

const RANK_EDGES = [-44, -30, -20, -14];
for (let y = -11; y <= 11; y += 0.25) RANK_EDGES.push(y);
RANK_EDGES.push(14, 20, 30, 44);
let rankMesh = null;

/** Φ̄_K(r) − Φ(1), the mean of Φ under Beta(r+1, K−r+1), for r = 0 … K; `fallen` is Φ − Φ(1), with the
 * exponent t where it is exponential. */
export function rankMeans(kind, { fallen, t }, k) {
  const ranks = Array.from({ length: k + 1 }, (_, r) => r);
  if (kind === "identity") return Float64Array.from(ranks, (r) => (r + 1) / (k + 2) - 1);
  if (kind === "log") {
    const means = new Float64Array(k + 1);
    let sum = -1 / (k + 1);
    for (let r = k; r >= 0; r--, sum -= 1 / (r + 1)) means[r] = sum;
    return means;
  }
  if (kind === "exponential") return Float64Array.from(ranks, (r) => exponentialMean(r, k, t));
  rankMesh ??= new Mesh(RANK_EDGES);
  const mesh = rankMesh, phi = mesh.map(fallen);
  const logU = mesh.map((u, x) => (u < 0.5 ? Math.log(u) : Math.log1p(-x)));
  const logX = mesh.map((u, x) => (x < 0.5 ? Math.log(x) : Math.log1p(-u)));
  return Float64Array.from(ranks, (r) => {
    const scale = logGamma(k + 2) - logGamma(r + 1) - logGamma(k - r + 1);
    let sum = 0;
    for (let i = 0; i < mesh.size; i++) {
      const log = scale + r * logU[i] + (k - r) * logX[i];
      if (log > -60) sum += mesh.w[i] * Math.exp(log) * phi[i];
    }
    return sum;
  });
}

/** The same for Φ = (e^{tu} − 1)/(e^t − 1): a series in |t| of positive terms, so that means near the top
 * keep their digits however steep Φ is. */
function exponentialMean(r, k, t) {
  // t < 0: −(E e^{|t|x} − 1)/(e^{|t|} − 1) with x = 1 − u.  t > 0: −E(e^t − e^{tu})/(e^t − 1).
  const steep = Math.abs(t), a = t < 0 ? k - r + 1 : r + 1, c = k + 2;
  let power = 1, moment = 1, lacking = 0, sum = 0, whole = 0;
  for (let j = 0; j < 40 + 4 * steep; j++) {
    lacking += (moment * (c - a)) / (c + j); // 1 − E x^{j+1}, without cancelling
    moment *= (a + j) / (c + j);
    power *= steep / (j + 1);
    sum += power * (t < 0 ? moment : lacking);
    whole += power;
  }
  return -sum / whole;
}

/** An imperfect judge's loss is smooth in normal scores, so ever steeper in u towards both ends: gaps
 * are cut there. */
const ENDS = [];
for (let j = 9; j >= 2; j--) ENDS.push(0.25 ** j);
for (let j = 2; j <= 9; j++) ENDS.push(1 - 0.25 ** j);

/** A rank rule's density and the reference's loss, tabulated: cubics on equal cells of [0,1]. */
function tables(procedure, agreement) {
  const g = new Float64Array(CELLS + 1), slope = new Float64Array(CELLS + 1);
  for (let c = 0; c <= CELLS; c++) {
    g[c] = procedure.density(c / CELLS, 1 - c / CELLS);
    slope[c] = procedure.slope(c / CELLS, 1 - c / CELLS);
  }
  const loss = new Float64Array(CELLS + 1), { nodes, weights } = gaussRule(6);
  for (let c = CELLS - 1; c >= 0; c--) {
    let sum = 0;
    for (let q = 0; q < 6; q++) {
      const v = (c + (1 + nodes[q]) / 2) / CELLS;
      sum += weights[q] * procedure.density(v, 1 - v);
    }
    loss[c] = loss[c + 1] + sum / (2 * CELLS);
  }
  if (agreement === 1) return { density: cubic(g, slope, 1), loss: cubic(loss, g, -1) };
  const mesh = new Mesh(FINE), judged = mesh.map(normalQuantile).map(goldCurves(procedure, agreement).loss);
  return { density: cubic(g, slope, 1), loss: (u) => mesh.interpolate(judged, u, 1 - u) };
}

function cubic(values, slopes, sign) {
  return (v) => {
    const place = Math.min(Math.max(v * CELLS, 0), CELLS - 1e-9), c = Math.floor(place), s = place - c;
    const d0 = (sign * slopes[c]) / CELLS, d1 = (sign * slopes[c + 1]) / CELLS;
    const rise = values[c + 1] - values[c];
    return values[c] + s * (d0 + s * (3 * rise - 2 * d0 - d1 + s * (d0 + d1 - 2 * rise)));
  };
}

/** Win rate with K rollouts at a mean true KL: {winRate, beta}, or {largest} where K cannot reach it.
 * `most` is the largest number of candidates, which sets the Gauss nodes per gap. */
export function finiteWinRate(procedure, most, phi, k, kl, agreement) {
  const worlds = worldsOf(k), { draws, gaps, shares } = worlds, size = k + 1, top = Math.max(...phi);
  let largest = 0;
  for (let d = 0; d < draws; d++) {
    let mass = 0;
    for (let r = 0; r < size; r++) if (phi[r] === top) mass += gaps[d * size + r];
    largest -= shares[d] * Math.log(mass);
  }
  if (!(kl > 0 && kl < 0.999 * largest)) return { largest };
  const meanKl = (logBeta) => {
    const tilt = phi.map((v) => (v - top) / Math.exp(logBeta)), weight = tilt.map(Math.exp);
    let sum = 0;
    for (let d = 0; d < draws; d++) {
      let mass = 0, moment = 0;
      for (let r = 0; r < size; r++) {
        const share = gaps[d * size + r] * weight[r];
        mass += share;
        moment += share * tilt[r];
      }
      sum += shares[d] * (moment / mass - Math.log(mass));
    }
    return sum;
  };
  const start = Math.log(top - Math.min(...phi));
  let low = start, high = start;
  while (meanKl(low) < kl) low -= 2;
  while (meanKl(high) > kl) high += 2;
  const logBeta = root((l) => meanKl(l) - kl, low, high, 1e-10);
  return { winRate: stepWinRate(procedure, most, phi, Math.exp(logBeta), worlds, agreement), beta: Math.exp(logBeta) };
}

function stepWinRate(procedure, most, phi, beta, { draws, gaps, shares }, agreement) {
  const size = phi.length, { density, loss } = tables(procedure, agreement), top = Math.max(...phi);
  const more = agreement === 1 ? 0 : 4, cuts = agreement === 1 ? [] : ENDS;
  const { nodes, weights } = gaussRule(Math.min(Math.floor((2 * most + 1) / 2) + more, NODES));
  const weight = phi.map((v) => Math.exp((v - top) / beta));
  /** ∫ loss·g(F) dF over a piece that starts at (u, F) = (from, below). */
  const piece = (from, gap, below, share) => {
    let sum = 0;
    for (let q = 0; q < nodes.length; q++) {
      const place = (1 + nodes[q]) / 2;
      sum += weights[q] * loss(from + gap * place) * density(below + share * place);
    }
    return (sum / 2) * share;
  };
  let lost = 0;
  for (let d = 0; d < draws; d++) {
    let mass = 0, below = 0, from = 0, cut = 0, own = 0;
    for (let r = 0; r < size; r++) mass += gaps[d * size + r] * weight[r];
    for (let r = 0; r < size; r++) {
      const dense = weight[r] / mass, end = from + gaps[d * size + r];
      while (cut < cuts.length && cuts[cut] < end) {
        own += piece(from, cuts[cut] - from, below, (cuts[cut] - from) * dense);
        below += (cuts[cut] - from) * dense;
        from = cuts[cut++];
      }
      const share = (end - from) * dense;
      if (share > 1e-14) own += piece(from, end - from, below, share);
      below += share;
      from = end;
    }
    lost += shares[d] * own;
  }
  return 1 - lost;
}
