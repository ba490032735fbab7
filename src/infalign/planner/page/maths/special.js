// The normal law, log Γ and root-finding: what the browser's Math lacks.

/** log Γ(x), x > 0 (Lanczos, g = 7): relative 1e-15. */
export function logGamma(x) {
  const c = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
    1.5056327351493116e-7];
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  let sum = c[0];
  for (let i = 1; i < 9; i++) sum += c[i] / (x - 1 + i);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

const ROOT_TWO_PI = Math.sqrt(2 * Math.PI);

/** The standard normal density. */
export function normalDensity(z) {
  return Math.exp((-z * z) / 2) / ROOT_TWO_PI;
}

/** The standard normal CDF, with relative precision in the lower tail: a series near 0, a continued
 * fraction beyond. */
export function normalCdf(z) {
  const size = Math.abs(z);
  if (size > 38) return z < 0 ? 0 : 1;
  if (size < 3) {
    let term = size, sum = size;
    for (let k = 3; term > 1e-17 * sum; k += 2) sum += term *= (size * size) / k;
    const half = sum * normalDensity(size);
    return z < 0 ? 0.5 - half : 0.5 + half;
  }
  let fraction = 0;
  for (let k = 60; k >= 1; k--) fraction = k / (size + fraction);
  const tail = normalDensity(size) / (size + fraction);
  return z < 0 ? tail : 1 - tail;
}

/** z with N(z) = u = 1 − x; the smaller of the two decides, so both tails keep their digits. */
export function normalQuantile(u, x) {
  const p = Math.min(u, x);
  if (p <= 1e-300) return u < x ? -37 : 37;
  const t = Math.sqrt(-2 * Math.log(p));
  let z = -(t - (2.515517 + t * (0.802853 + t * 0.010328)) /
    (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))));
  for (let step = 0; step < 3; step++) {
    const miss = (normalCdf(z) - p) / normalDensity(z);
    z -= miss / (1 + (z * miss) / 2); // Halley
  }
  return u <= x ? z : -z;
}

/** The root of a function that changes sign between low and high (Brent's method). */
export function root(f, low, high, tolerance = 1e-13) {
  let a = low, b = high, fa = f(a), fb = f(b);
  if (!(fa * fb <= 0)) return NaN;
  let c = a, fc = fa, d = b - a, e = d;
  for (let step = 0; step < 200; step++) {
    if (fb * fc > 0) [c, fc, d, e] = [a, fa, b - a, b - a];
    if (Math.abs(fc) < Math.abs(fb)) [a, b, c, fa, fb, fc] = [b, c, b, fb, fc, fb];
    const close = 2e-16 * Math.abs(b) + tolerance / 2, middle = (c - b) / 2;
    if (Math.abs(middle) <= close || fb === 0) return b;
    if (Math.abs(e) < close || Math.abs(fa) <= Math.abs(fb)) d = e = middle;
    else {
      const s = fb / fa;
      let p, q;
      if (a === c) [p, q] = [2 * middle * s, 1 - s];
      else {
        const r = fb / fc, v = fa / fc;
        [p, q] = [s * (2 * middle * v * (v - r) - (b - a) * (r - 1)), (v - 1) * (r - 1) * (s - 1)];
      }
      if (p > 0) q = -q;
      else p = -p;
      if (2 * p < Math.min(3 * middle * q - Math.abs(close * q), Math.abs(e * q))) [e, d] = [d, p / q];
      else d = e = middle;
    }
    [a, fa] = [b, fb];
    b += Math.abs(d) > close ? d : middle > 0 ? close : -close;
    fb = f(b);
  }
  return b;
}

/** t·eᵗ − eᵗ + 1 ≥ 0, also near t = 0: its integral is a KL that does not cancel. */
export function entropyExcess(t) {
  if (t === -Infinity) return 1;
  if (Math.abs(t) > 1e-2) return Math.exp(t) * (t - 1) + 1;
  return t * t * (1 / 2 + t * (1 / 3 + t * (1 / 8 + t * (1 / 30 + t * (1 / 144 + t / 840)))));
}

/** Solve A·y = b by elimination with partial pivoting. A: n rows of n, overwritten; returns b. */
export function solveLinear(rows, b) {
  const n = b.length;
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(rows[i][k]) > Math.abs(rows[pivot][k])) pivot = i;
    if (!(Math.abs(rows[pivot][k]) > 0)) return null;
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    [b[k], b[pivot]] = [b[pivot], b[k]];
    const top = rows[k];
    for (let i = k + 1; i < n; i++) {
      const row = rows[i], factor = row[k] / top[k];
      if (factor === 0) continue;
      for (let j = k + 1; j < n; j++) row[j] -= factor * top[j];
      b[i] -= factor * b[k];
    }
  }
  for (let k = n - 1; k >= 0; k--) {
    const row = rows[k];
    let sum = b[k];
    for (let j = k + 1; j < n; j++) sum -= row[j] * b[j];
    b[k] = sum / row[k];
  }
  return b;
}
