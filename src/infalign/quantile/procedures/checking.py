"""Checks that anyone's procedure can be held to, as the members here are.

A procedure is believed twice: `select` runs on text, `decoded_density` predicts. If the two do not
tell the same story, every prediction for it is wrong and nothing else would notice.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from infalign.quantile.mesh import Mesh
from infalign.quantile.procedures.procedure import Law, Procedure, Uniform
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.transforms import Identity, Log

__all__ = ["check_procedure"]

FALSE_ALARM = 1e-7
"""Chance that a right `select` fails one comparison; there are three, and three sequential ones."""
EDGES = tuple(np.linspace(-24.0, 24.0, 49))


def check_procedure(procedure: Procedure, *, draws: int = 8000, seed: int = 0) -> None:
    """Raise ValueError, naming all that is wrong, unless the procedure keeps its contract.

    Checked on three laws: the reference's and two aligned policies'.

    - `select` gives indices of candidates, the same for the same random numbers, and its answers
      follow `decoded_cdf` (Kolmogorov–Smirnov over `draws` answers); so do those of
      `select_early` where it may stop early, and after `realised` dice;
    - `decoded_density` is a density for any law, law by law or many at once, and `decoded_cdf`
      its integral;
    - `first_variation` is the slope of what answers are worth, along random changes of the law;
    - `mean_candidates` lies between 1 and `candidates`; the procedure can be hashed.

    Args:
        procedure: a member of your own.
        draws: answers compared with the law.
        seed: makes them.

    Example:
        >>> from infalign.quantile.procedures import SoftBestOfN
        >>> check_procedure(SoftBestOfN(4, temperature=0.2))
    """
    checks: tuple[Callable[..., Iterator[str]], ...] = (
        _face, _density, _cdf, _select, _early, _variation,
    )  # fmt: skip
    faults = []
    for check in checks:
        try:
            faults += list(check(procedure, draws, seed))
        except Exception as error:  # anyone's code: whatever it raises is the finding
            faults.append(f"{check.__name__.strip('_')}: {type(error).__name__}: {error}")
    if faults:
        listed = "\n".join(f"- {fault}" for fault in faults)
        raise ValueError(f"{type(procedure).__name__} does not keep its contract:\n{listed}")


def _laws() -> dict[str, Law]:
    return {
        "the reference": Uniform(),
        "a mild tilt": TiltedPolicy(Identity(), 0.5),
        "best-of-4 of the reference": TiltedPolicy(Log(), 1 / 3),
    }


def _mesh(procedure: Procedure) -> Mesh:
    return Mesh.of(EDGES, procedure.breaks)


def _face(procedure: Procedure, draws: int, seed: int) -> Iterator[str]:
    if not (isinstance(procedure.name, str) and procedure.name):
        yield f"name is {procedure.name!r}; a short text is needed."
    if not (isinstance(procedure.candidates, int) and procedure.candidates >= 1):
        yield f"candidates is {procedure.candidates!r}; an integer ≥ 1 is needed."
    if any(not 0 < b < 1 for b in procedure.breaks):
        yield f"breaks are {procedure.breaks}; quantiles strictly between 0 and 1 are needed."
    hash(procedure)
    for where, law in _laws().items():
        mean = procedure.mean_candidates(law)
        if not 1 <= mean <= procedure.candidates * (1 + 1e-9):
            yield f"mean_candidates is {mean} on {where}, not in 1 … {procedure.candidates}."


def _density(procedure: Procedure, draws: int, seed: int) -> Iterator[str]:
    mesh = _mesh(procedure)
    densities = np.stack([law.density(mesh.u) for law in _laws().values()])
    together = procedure.decoded_density(mesh, densities)
    if together.shape != densities.shape:
        yield f"decoded_density turns shape {densities.shape} into {together.shape}; keep it."
        return
    for where, density, among in zip(_laws(), densities, together, strict=True):
        decoded = procedure.decoded_density(mesh, density)
        if not np.isfinite(decoded).all():
            where_not = mesh.u[~np.isfinite(decoded)][0]
            yield f"decoded_density is not finite on {where}, first at u = {where_not:.4g}."
            continue
        if not np.abs(decoded - among).max() <= 1e-9 * max(1.0, np.abs(decoded).max()):
            yield f"decoded_density of {where} differs alone and among other laws."
        if decoded.min() < -1e-9:
            yield f"decoded_density is {decoded.min():.3g} on {where} at u = "
            yield f"{mesh.u[decoded.argmin()]:.4g}; a density is ≥ 0."
        if not abs(mesh.integral(decoded) - 1) <= 1e-8:
            yield f"decoded_density integrates to {mesh.integral(decoded):.9g} on {where}, not 1."


def _cdf(procedure: Procedure, draws: int, seed: int) -> Iterator[str]:
    mesh = _mesh(procedure)
    for where, law in _laws().items():
        cdf = procedure.decoded_cdf(law, mesh.u)
        ends = procedure.decoded_cdf(law, np.array([0.0, 1.0]))
        if not np.abs(ends - [0, 1]).max() <= 1e-8:
            yield f"decoded_cdf runs from {ends[0]:.6g} to {ends[1]:.6g} on {where}, not 0 to 1."
        if not (fall := np.diff(cdf)).min() >= -1e-9:
            yield f"decoded_cdf falls on {where} at u = {mesh.u[fall.argmin()]:.4g}."
        gap = cdf - mesh.below(procedure.decoded_density(mesh, law.density(mesh.u)))
        if not np.abs(gap).max() <= 1e-7:
            yield (
                f"decoded_cdf and the integral of decoded_density differ by {np.abs(gap).max():.2g}"
                f" on {where} at u = {mesh.u[np.abs(gap).argmax()]:.4g}."
            )


def _select(procedure: Procedure, draws: int, seed: int) -> Iterator[str]:
    quantiles = np.random.default_rng([seed, 1])  # not the stream that `select` gets
    for where, law in _laws().items():
        candidates = _sampled(procedure, law, draws, quantiles)
        chosen, again = (
            np.asarray(procedure.select(candidates, np.random.default_rng(seed))) for _ in range(2)
        )
        is_index = np.issubdtype(chosen.dtype, np.integer) and chosen.shape == (draws,)
        if not is_index or chosen.min() < 0 or chosen.max() >= procedure.candidates:
            yield (
                f"select gives {chosen.dtype} of shape {chosen.shape}; one index in 0 … "
                f"{procedure.candidates - 1} for each of {draws} rows is needed."
            )
            return
        if (chosen != again).any():
            yield "select gives other answers for the same rng; draw from no other source."
        answers = np.take_along_axis(candidates, chosen[:, None], axis=1)[:, 0]
        yield from _compared(procedure, "select", answers, where, law)


def _early(procedure: Procedure, draws: int, seed: int) -> Iterator[str]:
    is_plain = type(procedure).realised is Procedure.realised
    if is_plain and not procedure.is_sequential:
        return
    quantiles, rng = np.random.default_rng([seed, 2]), np.random.default_rng([seed, 3])
    for where, law in _laws().items():
        rows = _sampled(procedure, law, max(draws // 4, 1), quantiles)
        answers = np.array([_one_by_one(procedure.realised(rng), row, rng) for row in rows])
        yield from _compared(procedure, "select_early", answers, where, law)


def _one_by_one(procedure: Procedure, row: np.ndarray, rng: np.random.Generator) -> float:
    """The answer where candidates come one after the other; NaN where they never settle it."""
    for k in range(1, procedure.candidates + 1):
        index = procedure.select_early(row[:k], rng)
        if index is not None:
            return float(row[:k][index])
    return np.nan


def _sampled(procedure: Procedure, law: Law, draws: int, rng: np.random.Generator) -> np.ndarray:
    """N quantiles of the law for each answer."""
    place = np.linspace(0, 1, 4097)
    return np.interp(rng.random((draws, procedure.candidates)), law.cdf(place), place)


def _compared(
    procedure: Procedure, how: str, answers: np.ndarray, where: str, law: Law
) -> Iterator[str]:
    if np.isnan(answers).any():
        yield f"{how} gives no answer on {where} though all candidates are there."
        return
    test = stats.kstest(answers, lambda u: procedure.decoded_cdf(law, u))
    if not test.pvalue >= FALSE_ALARM:
        yield (
            f"{how} and decoded_cdf disagree on {where}: of {len(answers)} answers a share of "
            f"{np.mean(answers <= test.statistic_location):.4f} lies below u = "
            f"{test.statistic_location:.4f}, the law says "
            f"{float(procedure.decoded_cdf(law, test.statistic_location)):.4f}."
        )


def _variation(procedure: Procedure, draws: int, seed: int) -> Iterator[str]:
    mesh, rng = _mesh(procedure), np.random.default_rng(seed)
    for where, law in _laws().items():
        density, worth = law.density(mesh.u), mesh.u**2
        waves = rng.normal(size=(4, 3)) @ np.stack([mesh.u, mesh.u**3, np.cos(5 * mesh.u)])
        change = density * (waves - mesh.integral(waves * density)[:, None])
        step = 1e-4 / np.abs(waves).max()
        high, low = (procedure.decoded_density(mesh, density + s * change) for s in (step, -step))
        slope = mesh.integral((high - low) * worth) / (2 * step)
        said = mesh.integral(procedure.first_variation(mesh, density, worth) * change)
        if not np.abs(slope - said).max() <= 1e-5 * max(1.0, np.abs(slope).max()):
            worst = np.abs(slope - said).argmax()
            yield (
                f"first_variation says a slope of {said[worst]:.6g} on {where} where "
                f"decoded_density has {slope[worst]:.6g}."
            )
