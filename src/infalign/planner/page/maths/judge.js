// Who judges: the reward that selects, or a "gold" reward whose quantiles agree with it only so far.
//
// With Spearman correlation ρ (Gaussian copula, r = 2·sin(πρ/6)) an answer of quantile u is judged
// better than one of quantile u′ with probability N(k(z − z′)), k = r/√(2(1 − r²)), z = N⁻¹(u).
import { normalCdf, normalDensity, normalQuantile } from "./special.js";
import { uniformOn, wideMesh } from "./laws.js";

/** The judge's `loss` and `slope` at the nodes of a mesh, against the reference decoded the same way. */
export function judgeOn(mesh, procedure, agreement = 1) {
  if (agreement === 1) {
    const slope = procedure.decoded(mesh, uniformOn(mesh).f);
    return { loss: mesh.fromRight(slope), slope };
  }
  const { loss, slope } = goldCurves(procedure, agreement);
  const z = mesh.map(normalQuantile);
  return {
    loss: z.map(loss),
    slope: z.map((v) => slope(v) / normalDensity(v)),
  };
}

const goldTables = new Map();
const REACH = 9.2;

/** loss and −d loss/dz as functions of z: tabulated with exact derivatives, once per ρ. */
export function goldCurves(procedure, agreement) {
  const key = `${procedure.key},${agreement}`;
  if (goldTables.has(key)) return goldTables.get(key);
  const mesh = wideMesh(procedure.breaks), against = procedure.decoded(mesh, uniformOn(mesh).f);
  const r = 2 * Math.sin((Math.PI * agreement) / 6), k = r / Math.sqrt(2 * (1 - r * r));
  const zs = mesh.map(normalQuantile), mass = against.map((v, i) => v * mesh.w[i]);
  const CELLS = Math.ceil((2 * REACH) / Math.min(0.08, 0.15 / Math.abs(k)));
  const h = (2 * REACH) / CELLS, table = [0, 1, 2].map(() => new Float64Array(CELLS + 1));
  for (let c = 0; c <= CELLS; c++) {
    const z = -REACH + c * h;
    for (let i = 0; i < zs.length; i++) {
      const gap = k * (zs[i] - z);
      if (mass[i] === 0 || gap < -9) continue;
      if (gap > 9) { table[0][c] += mass[i]; continue; }
      const bump = mass[i] * k * normalDensity(gap);
      table[0][c] += mass[i] * normalCdf(gap);
      table[1][c] += bump;
      table[2][c] += bump * k * gap;
    }
  }
  const between = (values, slopes, sign) => (z) => {
    const place = Math.min(Math.max((z + REACH) / h, 0), CELLS - 1e-9), c = Math.floor(place);
    const s = place - c, d0 = sign * slopes[c] * h, d1 = sign * slopes[c + 1] * h;
    const rise = values[c + 1] - values[c];
    return values[c] + s * (d0 + s * (3 * rise - 2 * d0 - d1 + s * (d0 + d1 - 2 * rise)));
  };
  const curves = { loss: between(table[0], table[1], -1), slope: between(table[1], table[2], 1) };
  if (goldTables.size > 60) goldTables.clear();
  goldTables.set(key, curves);
  return curves;
}

/** W = 1 − ∫ loss dT(F) of a law. */
export function winRate(law, procedure, agreement = 1) {
  const { mesh, f } = law, { loss } = judgeOn(mesh, procedure, agreement);
  const decoded = procedure.decoded(mesh, f);
  return 1 - mesh.integral(decoded.map((t, i) => t * loss[i]));
}
