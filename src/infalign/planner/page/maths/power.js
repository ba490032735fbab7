// The optimal law for best-of-N and worst-of-N, exactly, from one curve for every β at once.
//
// With x = u, H = F for best-of and x = 1 − u, H = 1 − F for worst-of, every solution of the
// stationarity condition is a stretched piece of one curve. In ℓ = log(n²/β) at the piece's end,
//     λ = log of the density at the far end:   dλ/dℓ  = (1 + σe^ℓ − e^λ)/D,   D = n + (n−1)e^λ,
//     KL of the piece:                         dKL/dℓ = (1 − e^λ + e^λ(λ − KL))/D,
//     log x and log H along it:                dlog x = dℓ/D,  dlog H = e^λ dℓ/D.
// Steep layers are features of width one in ℓ, so fourth-order steps of 1/32 give ten digits.
import { FINE, Mesh, refinedMesh } from "./quadrature.js";
import { Law } from "./laws.js";

const BEGIN = -24, STEP = 1 / 32;

function rates(n, sign, ell, lambda, kl, out) {
  const w = Math.exp(lambda), d = n + (n - 1) * w;
  out[0] = (1 + sign * Math.exp(ell) - w) / d;
  out[1] = (1 - w + w * (lambda - kl)) / d;
  out[2] = 1 / d;
  out[3] = w / d;
}

/** One Runge–Kutta step: new λ and KL, and what log x and log H grew by. */
function stepped(n, sign, ell, lambda, kl, h) {
  const k = [0, 1, 2, 3].map(() => [0, 0, 0, 0]);
  rates(n, sign, ell, lambda, kl, k[0]);
  rates(n, sign, ell + h / 2, lambda + (h / 2) * k[0][0], kl + (h / 2) * k[0][1], k[1]);
  rates(n, sign, ell + h / 2, lambda + (h / 2) * k[1][0], kl + (h / 2) * k[1][1], k[2]);
  rates(n, sign, ell + h, lambda + h * k[2][0], kl + h * k[2][1], k[3]);
  const grown = k[0].map((_, j) => (h / 6) * (k[0][j] + 2 * k[1][j] + 2 * k[2][j] + k[3][j]));
  return [lambda + grown[0], kl + grown[1], grown[2], grown[3]];
}

const powerCurves = new Map();

/** The curve of (n, σ) up to a KL: one row [ℓ, λ, KL, Δlog x, Δlog H] per step. */
function curveTo(n, sign, kl) {
  const key = `${n},${sign}`;
  if (!powerCurves.has(key)) {
    if (powerCurves.size > 40) powerCurves.clear();
    powerCurves.set(key, [[BEGIN, (sign * Math.exp(BEGIN)) / (2 * n), 0, 0, 0]]);
  }
  const rows = powerCurves.get(key);
  while (rows[rows.length - 1][2] < kl) {
    const [ell, lambda, known] = rows[rows.length - 1];
    const next = stepped(n, sign, ell, lambda, known, STEP);
    if (!(next.every(Number.isFinite) && ell < 690)) return null;
    rows.push([ell + STEP, ...next]);
  }
  return rows;
}

/** Where the curve has a KL: the last whole row before it, and the step from there. */
function endAt(n, sign, kl) {
  const rows = curveTo(n, sign, kl);
  if (rows === null) return null;
  let low = 0, high = rows.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (rows[middle][2] < kl) low = middle;
    else high = middle;
  }
  const [ell, lambda, known] = rows[low];
  let near = 0, far = STEP;
  for (let i = 0; i < 60; i++) {
    const h = (near + far) / 2;
    if (stepped(n, sign, ell, lambda, known, h)[1] < kl) near = h;
    else far = h;
  }
  const h = (near + far) / 2;
  return { rows, last: low, end: [ell + h, ...stepped(n, sign, ell, lambda, known, h)] };
}

/** β and win rate of the optimum at a KL; sign +1 best-of-n, −1 worst-of-n, n ≥ 2. */
export function powerPoint(n, sign, kl) {
  const found = endAt(n, sign, kl);
  if (found === null) return null;
  const [ell, lambda, reached] = found.end, beta = n * n * Math.exp(-ell);
  const share = (beta / n) * (reached - lambda);
  return { kl, beta, winRate: Math.min(sign > 0 ? 1 + share : share, 1) };
}

/** The optimal law itself. */
export function powerLaw(n, sign, kl) {
  const found = endAt(n, sign, kl);
  if (found === null) return null;
  const logDensity = alongPiece(n, sign, found);
  const mesh = refinedMesh(new Mesh(FINE), (u, x) => Math.exp(logDensity(u, x)));
  const law = new Law(mesh, mesh.map(logDensity));
  law.beta = n * n * Math.exp(-found.end[0]);
  law.logDensityAt = logDensity;
  return law;
}

/** log f(u) along a piece: tables of −log x and −log H measured back from its end. */
function alongPiece(n, sign, { rows, last, end }) {
  const size = last + 2, ell = new Float64Array(size), lambda = new Float64Array(size);
  const depth = new Float64Array(size), fall = new Float64Array(size);
  for (let i = 0, row = end, back = last; i < size; i++, row = rows[back--]) {
    [ell[i], lambda[i]] = row;
    if (i + 1 < size) [depth[i + 1], fall[i + 1]] = [depth[i] + row[3], fall[i] + row[4]];
  }
  const rate = [0, 0, 0, 0];
  const slopes = (i) => { rates(n, sign, ell[i], lambda[i], 0, rate); return [...rate]; };
  return (u, x) => {
    const near = sign > 0 ? u : x, far = sign > 0 ? x : u;
    const deep = Math.min(far < 0.5 ? -Math.log1p(-far) : -Math.log(near), 700);
    if (deep >= depth[size - 1]) return depth[size - 1] - fall[size - 1];
    let low = 0, high = size - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (depth[middle] <= deep) low = middle;
      else high = middle;
    }
    const h = ell[low] - ell[high], a = slopes(low), b = slopes(high);
    const depthAt = (s) => hermite(s, depth[low], depth[high], a[2] * h, b[2] * h);
    let s = (deep - depth[low]) / (depth[high] - depth[low]), below = 0, above = 1;
    for (let i = 0; i < 40; i++) {
      const [value, slope] = depthAt(s), miss = value - deep;
      if (miss > 0) above = s;
      else below = s;
      const next = s - miss / slope;
      const kept = next > below && next < above ? next : (below + above) / 2;
      if (Math.abs(kept - s) < 1e-15) break;
      s = kept;
    }
    const lam = hermite(s, lambda[low], lambda[high], -a[0] * h, -b[0] * h)[0];
    return lam - hermite(s, fall[low], fall[high], a[3] * h, b[3] * h)[0] + deep;
  };
}

/** Cubic through two values with their slopes, s in [0,1]: value and slope. */
function hermite(s, y0, y1, d0, d1) {
  const c = 3 * (y1 - y0) - 2 * d0 - d1, e = 2 * (y0 - y1) + d0 + d1;
  return [y0 + s * (d0 + s * (c + s * e)), d0 + s * (2 * c + 3 * s * e)];
}
