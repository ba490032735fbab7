// Laws of aligned policies on [0,1], and the transforms that make them.
import { FINE, Mesh } from "./quadrature.js";
import { entropyExcess, root } from "./special.js";

/** A law given by log f at the nodes of a mesh, normalised here. */
export class Law {
  constructor(mesh, logDensity, beta = NaN) {
    let top = -Infinity;
    for (const value of logDensity) top = Math.max(top, value);
    const mass = mesh.integral(logDensity.map((value) => Math.exp(value - top)));
    this.mesh = mesh;
    this.beta = beta;
    this.logMass = top + Math.log(mass);
    this.logf = logDensity.map((value) => value - this.logMass);
    this.f = this.logf.map(Math.exp);
  }

  /** F at the nodes. */
  get cdf() {
    return (this.cachedCdf ??= this.mesh.fromLeft(this.f));
  }

  /** ∫ f log f, in nats. */
  get kl() {
    return (this.cachedKl ??= this.mesh.integral(this.logf.map(entropyExcess)));
  }

  /** log f at any u = 1 − x. */
  logDensityAt(u, x) {
    return this.mesh.interpolate(this.logf, u, x);
  }
}

/** Φ by name: `identity`, `log` or `exponential` with its t. `phi` is Φ(u), and `fallen` is
 * Φ(u) − Φ(1), written so that it keeps its digits near u = 1. */
export function transformOf(kind, t) {
  const log = (u, x) => (u < 0.5 ? Math.log(u) : Math.log1p(-x));
  if (kind === "log") return { kind, phi: log, fallen: log };
  if (kind === "exponential" && Math.abs(t) > 1e-9) {
    const fallen = (u, x) => (t > 0
      ? -Math.expm1(-t * x) / Math.expm1(-t)
      : (Math.exp(t) * Math.expm1(-t * x)) / Math.expm1(t));
    const phi = (u, x) => (t > 0
      ? (Math.exp(-t * x) * Math.expm1(-t * u)) / Math.expm1(-t)
      : Math.expm1(t * u) / Math.expm1(t));
    return { kind, phi, fallen };
  }
  return { kind: "identity", phi: (u) => u, fallen: (u, x) => -x };
}

const wideMeshes = new Map();
/** Finer in the middle, where the median of many responses is a narrow peak. */
const WIDE = FINE.flatMap((y) => {
  const parts = y >= -8 && y < 8 ? 4 : y >= -14 && y < 14 ? 2 : 1;
  return Array.from({ length: parts }, (_, i) => y + (2 * i) / parts);
});

/** A mesh that resolves every law of a named transform up to 5 nats. */
export function wideMesh(breaks = []) {
  const key = breaks.join();
  if (!wideMeshes.has(key)) {
    if (wideMeshes.size > 20) wideMeshes.clear();
    wideMeshes.set(key, new Mesh(WIDE.filter((y) => y <= 44), { breaks }));
  }
  return wideMeshes.get(key);
}

/** The tilt ∝ exp(Φ/β) of the uniform law at which ∫ f log f is `kl`. */
export function tiltedTo(transform, kl, breaks = []) {
  const mesh = wideMesh(breaks), phi = mesh.map(transform.fallen);
  const tilt = (logBeta) => new Law(mesh, phi.map((p) => p / Math.exp(logBeta)), Math.exp(logBeta));
  const logBeta = logBetaFor((l) => tilt(l).kl, kl);
  const law = tilt(logBeta);
  law.beta = Math.exp(logBeta);
  law.phiAt = transform.phi;
  return law;
}

/** log β at which a KL that falls with β has the given value. */
export function logBetaFor(klAt, kl) {
  const excess = (logBeta) => Math.log(Math.max(klAt(logBeta), 1e-300)) - Math.log(kl);
  let high = 1;
  while (excess(high) > 0) high += 2;
  let low = high - 0.7;
  while (excess(low) < 0 && low > -80) low -= 0.7;
  return root(excess, low, Math.min(high, low + 0.75));
}

/** The uniform law: the reference. */
export function uniformOn(mesh) {
  return new Law(mesh, new Float64Array(mesh.size), Infinity);
}
