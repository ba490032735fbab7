// Figures as small SVGs: axes, curves told apart by colour and dash, a legend in words.

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const DASHES = { limit: "", optimal: "9 3", identity: "6 3", log: "2 3", exponential: "8 3 2 3", f: "", t: "7 3", reference: "2 3", phi: "" };
const COLOURS = { limit: "s1", optimal: "s5", identity: "s2", log: "s3", exponential: "s4", f: "s1", t: "s2", reference: "muted", phi: "s1" };

/** Draw curves into an element: `curves` [{key, name, points: [[x, y]]}], axes {min, max, ticks, title, text}. */
export function draw(place, { curves, x, y, mark, alt }) {
  const width = Math.max(place.clientWidth, 240), height = Math.round(Math.min(Math.max(width * 0.6, 220), 340));
  const left = 52, right = 10, top = 10, bottom = 40;
  const px = (v) => left + ((v - x.min) / (x.max - x.min)) * (width - left - right);
  const py = (v) => height - bottom - ((v - y.min) / (y.max - y.min)) * (height - top - bottom);
  const clip = `clip-${place.id}`, out = [];
  for (const tick of y.ticks) {
    out.push(`<line class="grid" x1="${left}" x2="${width - right}" y1="${py(tick)}" y2="${py(tick)}"/>`,
      `<text x="${left - 6}" y="${py(tick) + 4}" text-anchor="end">${escape(y.text(tick))}</text>`);
  }
  for (const tick of x.ticks) {
    out.push(`<text x="${px(tick)}" y="${height - bottom + 18}" text-anchor="middle">${escape(x.text(tick))}</text>`);
  }
  out.push(`<line class="axis" x1="${left}" x2="${width - right}" y1="${height - bottom}" y2="${height - bottom}"/>`,
    `<text x="${(left + width - right) / 2}" y="${height - 4}" text-anchor="middle">${escape(x.title)}</text>`,
    `<clipPath id="${clip}"><rect x="${left}" y="${top - 2}" width="${width - left - right}" height="${height - top - bottom + 3}"/></clipPath>`);
  for (const { key, points } of curves) {
    const path = points.filter(([, v]) => Number.isFinite(v))
      .map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${Math.min(Math.max(py(b), -1e4), 1e4).toFixed(1)}`).join("");
    out.push(`<path d="${path}" clip-path="url(#${clip})" style="stroke:var(--${COLOURS[key]})" stroke-dasharray="${DASHES[key]}"/>`);
  }
  if (mark && Number.isFinite(mark[1])) {
    out.push(`<circle cx="${px(mark[0])}" cy="${py(mark[1])}" r="6" style="fill:var(--card);stroke:var(--ink);stroke-width:2.5"/>`);
  }
  const legend = curves.map(({ key, name }) => `<li><svg viewBox="0 0 28 10" aria-hidden="true"><path d="M0 5H28" style="stroke:var(--${COLOURS[key]})" stroke-dasharray="${DASHES[key]}"/></svg>${escape(name)}</li>`);
  place.innerHTML = `${curves.length > 1 ? `<ul class="legend">${legend.join("")}</ul>` : ""}<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(alt)}">${out.join("")}</svg>`;
}

/** Round ticks between two numbers, about so many. */
export function ticksBetween(min, max, about = 5) {
  const rough = (max - min) / about, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** Points along a monotone cubic through (KL, W), drawn in √KL where frontiers are straight near 0. */
export function smooth(points) {
  const xs = points.map(([kl]) => Math.sqrt(kl)), ys = points.map(([, w]) => w), n = xs.length;
  if (n < 3) return points;
  const secants = xs.slice(1).map((v, i) => (ys[i + 1] - ys[i]) / (v - xs[i]));
  const slopes = xs.map((_, i) => {
    if (i === 0) return secants[0];
    if (i === n - 1) return secants[n - 2];
    const a = secants[i - 1], b = secants[i];
    if (a * b <= 0) return 0;
    const h = xs[i] - xs[i - 1], k = xs[i + 1] - xs[i];
    return (3 * (h + k)) / ((2 * k + h) / a + (k + 2 * h) / b);
  });
  const out = [];
  for (let i = 0; i + 1 < n; i++) {
    const h = xs[i + 1] - xs[i];
    for (let s = 0; s < 1; s += 0.125) {
      const rise = ys[i + 1] - ys[i], d0 = slopes[i] * h, d1 = slopes[i + 1] * h;
      const value = ys[i] + s * (d0 + s * (3 * rise - 2 * d0 - d1 + s * (d0 + d1 - 2 * rise)));
      out.push([(xs[i] + s * h) ** 2, value]);
    }
  }
  return [...out, points[n - 1]];
}

/** A heat map's cell colour for a share in [0,1], and the text colour that reads best on it. */
export function cellColours(share) {
  const style = getComputedStyle(document.documentElement);
  const [low, high] = ["--card", "--s1"].map((name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  });
  const mixed = low.map((v, i) => Math.round(v + (high[i] - v) * Math.min(Math.max(share, 0), 1)));
  const linear = mixed.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  const text = 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? "#ffffff" : "#000000";
  return { background: `rgb(${mixed.join(",")})`, text };
}
