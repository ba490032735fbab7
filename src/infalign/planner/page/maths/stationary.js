// The optimal law for any procedure and judge, by Newton's method on its own first variation.
//
// At KL κ the best law is f ∝ exp(ψ[f]/β). Its values log f at the nodes, a constant c and log β solve
//     log f_i = ψ_i[f]/β + c,      ∫ f = 1,      ∫ f log f = κ.
// A walk from small KL, where ψ is that of the reference, keeps Newton's method near its solution;
// panels that do not resolve the law are halved.
import { COARSE, Mesh } from "./quadrature.js";
import { solveLinear } from "./special.js";
import { Law, logBetaFor } from "./laws.js";
import { judgeOn } from "./judge.js";

const ORDER = 12, RESOLVED = 1e-7, MOST = 40, FIRST = 0.02, STRIDE = 3;
/** Milliseconds after which a walk gives up, wherever it is. */
const PATIENCE = 8000;
let until = Infinity;
const isLate = () => Date.now() > until;

const walks = new Map();

/** The optimal law at a KL, or null where the walk does not get there. Walks are kept. */
export function stationaryLaw(procedure, agreement, kl) {
  const key = `${procedure.key},${agreement}`;
  if (!walks.has(key)) {
    if (walks.size > 60) walks.delete(walks.keys().next().value);
    walks.set(key, { laws: [], lost: Infinity });
  }
  const walk = walks.get(key), { laws } = walk;
  if (kl >= walk.lost) return null; // a shorter walk has failed before
  const known = laws.find((law) => law.isLast && Math.abs(law.asked - kl) < 1e-9);
  if (known) return known;
  let from = laws.filter((law) => law.asked < kl).reduce((a, b) => (a?.asked > b.asked ? a : b), null);
  until = Date.now() + PATIENCE;
  for (let stride = STRIDE; !isLate(); ) {
    const goal = Math.min(kl, from === null ? FIRST : from.asked * stride);
    const guess = from ?? firstGuess(procedure, agreement);
    const law = solved(procedure, agreement, guess, goal, goal === kl);
    if (law === null) {
      stride = 1 + (stride - 1) / 2;
      if (from === null || stride < 1.02) break;
      continue;
    }
    laws.push(law);
    if (goal === kl) return law;
    from = law;
    stride = Math.min(STRIDE, 1 + 1.5 * (stride - 1));
  }
  walk.lost = kl;
  return null;
}

/** The reference's own ψ, as the exponent of a law on a coarse mesh. */
function firstGuess(procedure, agreement) {
  const mesh = new Mesh(COARSE, { breaks: procedure.breaks, order: ORDER });
  const ones = new Float64Array(mesh.size).fill(1);
  return new Law(mesh, procedure.variation(mesh, ones, judgeOn(mesh, procedure, agreement)));
}

/** Newton's method from the tilt of an earlier law, on finer meshes until the law is resolved. */
function solved(procedure, agreement, from, kl, isLast) {
  const tilt = (logScale) => new Law(from.mesh, from.logf.map((v) => v / Math.exp(logScale)));
  const logScale = logBetaFor((l) => tilt(l).kl, kl);
  if (!Number.isFinite(logScale)) return null;
  let law = newton(procedure, agreement, tilt(logScale), kl, isLast);
  while (law !== null) {
    const { mesh, f } = law, judge = judgeOn(mesh, procedure, agreement);
    const tails = [f, procedure.decoded(mesh, f), judge.slope].map((values) => mesh.tails(values));
    const limit = isLast ? RESOLVED : 1e-4;
    const rough = tails[0].map((_, p) => tails.some((tail) => tail[p] > limit));
    if (!rough.includes(true) || mesh.edges.length > MOST) return law;
    const finer = mesh.halved(rough), coarse = law;
    law = newton(procedure, agreement,
      new Law(finer, finer.map((u, x) => coarse.logDensityAt(u, x)), coarse.beta), kl, isLast);
  }
  return null;
}

function newton(procedure, agreement, guess, kl, isLast) {
  const { mesh } = guess, n = mesh.size, judge = judgeOn(mesh, procedure, agreement);
  let logf = guess.logf, f = guess.f, psi = procedure.variation(mesh, f, judge);
  let logBeta = matchingLogBeta(mesh, f, logf, psi);
  let constant = offset(mesh, f, logf, psi, Math.exp(logBeta)), last = Infinity, columns = null;
  for (let round = 0; round < 14; round++) {
    // Differences are dear: while steps are short, those of an earlier step will do.
    if (procedure.curvature || columns === null || last > 0.3) columns = columnsAt(procedure, mesh, f, judge);
    if (isLate()) return null;
    const step = newtonStep(mesh, columns, { logf, f, psi, beta: Math.exp(logBeta), constant }, kl);
    if (step === null) return null;
    // Only where there is mass, now or after the step, must steps be short.
    let size = Math.abs(step[n + 1]);
    for (let i = 0; i < n; i++) {
      if (Math.max(logf[i], logf[i] + step[i]) > -9) size = Math.max(size, Math.abs(step[i]));
    }
    if (!(size < 30)) return null; // lost: a shorter step of KL will do better
    const damping = Math.min(1, 2 / size);
    logf = logf.map((v, i) => v + damping * step[i]);
    constant += damping * step[n];
    logBeta += damping * step[n + 1];
    f = logf.map((v) => Math.exp(Math.min(v, 600)));
    psi = procedure.variation(mesh, f, judge);
    if (size < (isLast ? 1e-5 : 3e-2) || (size < 1e-4 && size > last / 4)) {
      const law = new Law(mesh, logf, Math.exp(logBeta));
      Object.assign(law, { asked: kl, isLast });
      const decoded = procedure.decoded(mesh, law.f);
      law.winRate = 1 - mesh.integral(decoded.map((t, i) => t * judge.loss[i]));
      return law;
    }
    last = size;
  }
  return null;
}

/** How ψ changes per mass added at each node that matters. */
function columnsAt(procedure, mesh, f, judge) {
  const change = procedure.curvature?.(mesh, f, judge) ?? byDifferences(procedure, mesh, f, judge);
  return Array.from(f, (v, j) => (mesh.w[j] * v < 1e-25 || isLate() ? null : change(j)));
}

function byDifferences(procedure, mesh, f, judge) {
  const moved = Float64Array.from(f), bump = 1e-6, here = procedure.variation(mesh, f, judge);
  return (j) => {
    moved[j] = f[j] + bump / mesh.w[j];
    const there = procedure.variation(mesh, moved, judge);
    moved[j] = f[j];
    return there.map((v, i) => (v - here[i]) / bump);
  };
}

/** The Newton step in (log f, c, log β). */
function newtonStep(mesh, columns, { logf, f, psi, beta, constant }, kl) {
  const n = mesh.size, rows = [], right = new Float64Array(n + 2);
  for (let i = 0; i < n; i++) {
    const row = new Float64Array(n + 2);
    row[i] = 1;
    row[n] = -1;
    row[n + 1] = psi[i] / beta;
    rows.push(row);
    right[i] = psi[i] / beta + constant - logf[i];
  }
  const unit = new Float64Array(n + 2), spread = new Float64Array(n + 2);
  let mass = 0, reached = 0;
  for (let j = 0; j < n; j++) {
    const share = mesh.w[j] * f[j];
    unit[j] = share;
    spread[j] = share * (1 + logf[j]);
    mass += share;
    reached += share * logf[j];
    const column = columns[j], factor = share / beta;
    if (column !== null) for (let i = 0; i < n; i++) rows[i][j] -= column[i] * factor;
  }
  rows.push(unit, spread);
  right[n] = 1 - mass;
  right[n + 1] = kl - reached;
  return solveLinear(rows, right);
}

/** log β by least squares of ψ on log f. */
function matchingLogBeta(mesh, f, logf, psi) {
  const mean = (values) => mesh.integral(values.map((v, i) => v * f[i]));
  const psiMean = mean(psi), logMean = mean(logf);
  const both = mean(psi.map((v, i) => (v - psiMean) * (logf[i] - logMean)));
  const own = mean(logf.map((v) => (v - logMean) ** 2));
  return Math.log(Math.max(both, 1e-300) / Math.max(own, 1e-300));
}

function offset(mesh, f, logf, psi, beta) {
  return mesh.integral(f.map((v, i) => v * (logf[i] - psi[i] / beta)));
}
