"""A realistic report made of invented numbers: two acts, every part filled, fixed by a seed.

Run as a script it writes the report into a folder, to look at: `python example_report.py FOLDER`.
"""

import sys

import numpy as np

from infalign.report import (
    Act,
    Answer,
    AnswerPair,
    CalibrationCheck,
    Checkpoint,
    Comparison,
    Curve,
    Decomposition,
    DecompositionRow,
    Difference,
    Estimate,
    Frontier,
    IdealRow,
    Manifest,
    Measured,
    PolicyValue,
    Report,
    Stage,
    TrainingCurve,
    WinRateByN,
    write_report,
)

_GRID = (np.arange(4000) + 0.5) / 4000
_KLS = (0, *np.geomspace(0.005, 3, 40))
_TREATMENT, _BASELINE, _MIDDLE = "InfAlign exp(10u)", "RLHF on raw reward", "calibrated only"
_TRANSFORMS = {
    "exp(10u)": np.expm1(10 * _GRID) / np.expm1(10),
    "identity": _GRID,
    "log": np.log(_GRID),
}
_POLICIES = {_TREATMENT: "exp(10u)", _BASELINE: "raw", _MIDDLE: "identity"}


def _curve(transform: str, n: int, shrink: float = 1.0) -> Curve:
    """Best-of-n win rate along the tilt of one transform, by sums over a grid."""
    phi, kls, wins = _TRANSFORMS[transform], [0.0], [0.5]
    for inverse in np.geomspace(0.02, 400, 120):
        density = np.exp(inverse * (phi - phi.max()))
        density /= density.mean()
        cdf = np.cumsum(density) / len(density)
        kls.append(float(np.mean(density * np.log(np.maximum(density, 1e-300)))))
        wins.append(float(1 - n * np.mean(cdf**n * _GRID ** (n - 1))))
    found = np.interp(np.sqrt(_KLS), np.sqrt(kls), wins)
    return Curve(transform, _KLS, 0.5 + shrink * (found - 0.5))


def _curves(n: int) -> dict[str, Curve]:
    curves = {name: _curve(name, n) for name in _TRANSFORMS}
    raw = Curve("raw", _KLS, 0.5 + 0.9 * (np.array(curves["identity"].win_rates) - 0.5))
    best = np.maximum.reduce([curve.win_rates for curve in curves.values()])
    limit = np.minimum(1, 0.5 + (best - 0.5) * 1.012)
    optimal = Curve("optimal at KL 1", _KLS, 0.5 + (best - 0.5) * 1.008)
    return {"limit": Curve("limit", _KLS, limit), "raw": raw, **curves, "optimal": optimal}


def _at(curve: Curve, kl: float) -> float:
    return float(np.interp(np.sqrt(kl), np.sqrt(curve.kls), curve.win_rates))


def _frontier(split: str, reach: float, ends: list[float], error: float, rng) -> Frontier:
    curves = _curves(4)
    limit = curves.pop("limit")
    measured = []
    for (policy, transform), end in zip(_POLICIES.items(), ends, strict=True):
        kls = end * np.linspace(0.12, 1, 5) ** 1.2
        points = []
        for step, kl in enumerate(kls):
            win = 0.5 + reach * (_at(curves[transform], kl) - 0.5) + rng.normal(0, error / 3)
            win_rate = Estimate(win, error, prompts=24)
            points.append(Checkpoint(Estimate(kl, 0.04 * kl, 24), win_rate, step=12 * (step + 1)))
        measured.append(Measured(policy, transform, points))
    note = "Curves: continuous reward, perfect calibration."
    return Frontier(split, limit, tuple(curves.values()), tuple(measured), note=note)


def _comparisons(gain: dict[str, float], rng) -> list[Comparison]:
    found = []
    for split in ("train", "held-out"):
        for judge, part in (("MiniLM head", 1.0), ("gold head", 0.6), ("VADER lexicon", 0.3)):
            for procedure, kl in (("best-of-4", 0.25), ("best-of-4", 0.5), ("standard", 0.5)):
                base = 0.5 + (0.42 if procedure == "best-of-4" else 0.3) * np.sqrt(kl) * part
                plus = {_TREATMENT: gain[split] * part, _BASELINE: 0, _MIDDLE: -0.008 * part}
                if procedure == "standard":
                    plus[_TREATMENT] = -0.03 * part
                wins = [
                    PolicyValue(p, Estimate(base + d, 0.02 + rng.uniform(0, 0.01), 24))
                    for p, d in plus.items()
                ]
                pairs = [
                    Difference(_TREATMENT, other, Estimate(plus[_TREATMENT] - plus[other], e, 24))
                    for other, e in ((_BASELINE, 0.013), (_MIDDLE, 0.012))
                ]
                found.append(Comparison(kl, split, judge, procedure, wins, pairs))
    return found


def _ideal() -> list[IdealRow]:
    one, four = _curves(1), _curves(4)
    return [
        IdealRow(
            name,
            kl,
            Estimate(_at(one[name], kl), 0.011, 48),
            Estimate(_at(four[name], kl), 0.014, 48),
            beta=0.3 / kl,
        )
        for kl in (0.5, 1.0)
        for name in ("raw", "identity", "log", "exp(10u)", "optimal")
    ]


def _decomposition(policy: str, kl: float, levels: list[float]) -> Decomposition:
    words = (
        ("ideal at this KL", "theory, continuous reward, perfect calibration"),
        ("finite K", "quantiles from 32 reference rollouts per prompt"),
        ("trained, training prompts", "optimisation short of the optimum; fresh samples"),
        ("trained, held-out prompts", "generalisation to prompts never trained on"),
    )
    rows = [
        DecompositionRow(label, level, None if i == 0 else 0.012, note)
        for i, ((label, note), level) in enumerate(zip(words, levels, strict=True))
    ]
    return Decomposition(policy, kl, rows)


def _calibration(prompts: int, k: int, rng) -> CalibrationCheck:
    scale = rng.uniform(0.25, 1.3, size=(prompts, 1))
    rewards = rng.normal(0.6, 1.2, size=(prompts, 1)) + scale * rng.gumbel(size=(prompts, k))
    fresh = rng.gumbel(size=(prompts, k, 1)) > rng.gumbel(size=(prompts, 1, k))
    names = [f"opening {i + 1}" for i in range(prompts)]
    note = "Fresh rollouts, calibrated by the stored ones."
    return CalibrationCheck.from_rewards(rewards, fresh.mean(2), names, note=note)


def _training(steps: int, rng) -> list[TrainingCurve]:
    curves = []
    for policy, top, kl in zip(_POLICIES, (0.75, 0.79, 0.78), (1.02, 0.98, 1.0), strict=True):
        x = np.arange(steps + 1) / steps
        rise = (1 - np.exp(-3 * x)) / (1 - np.exp(-3))
        noise = rng.normal(0, 0.008, (3, steps + 1))
        curves.append(
            TrainingCurve(
                policy,
                np.arange(steps + 1),
                reward=-0.16 + 0.9 * rise * top + 4 * noise[0],
                quantile=0.5 + (top - 0.5) * rise + noise[1],
                kl=kl * rise**1.5,
            )
        )
    return curves


def _by_n() -> list[WinRateByN]:
    ns, found = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32), []
    for split, reach in (("train", 0.97), ("held-out", 0.55)):
        for (policy, transform), kl in zip(_POLICIES.items(), (1.02, 0.98, 1.0), strict=True):
            name = "identity" if transform == "raw" else transform
            shrink = reach * (0.9 if transform == "raw" else 1)
            wins = [Estimate(_at(_curve(name, n, shrink), kl), 0.012 + 0.0004 * n, 24) for n in ns]
            found.append(WinRateByN(policy, split, ns, wins, kl=kl))
    return found


_ANSWERS = (
    ("A smart, witty and", "charming film that", "moving story of two people who find each other"),
    ("The acting is", "good, but the story is weak.", "superb throughout, a joy from start to end"),
    ("It never quite", "works.", "loses its warmth, its wit or its enormous heart"),
    ("What begins as a brisk thriller", "turns into a mess", "becomes a rich and beautiful drama"),
)


def _answers() -> list[AnswerPair]:
    return [
        AnswerPair(
            f"Continue this film review in a few words: “{opening} …”",
            (
                Answer(_BASELINE, raw, 0.41 + 0.2 * i, 0.71 + 0.03 * i, 0.3),
                Answer(_TREATMENT, aligned, 1.62 + 0.1 * i, 0.97 + 0.005 * i, 1.1 - 0.2 * i),
            ),
            "held-out" if i % 2 else "train",
        )
        for i, (opening, raw, aligned) in enumerate(_ANSWERS * 2)
    ]


_EXPERIMENT = """\
prompts: {kind: reviews, train: 24, held_out: 24}
rollouts: {k: 32, temperature: 0.8, max_new_tokens: 12}
procedure: {kind: best_of_n, n: 4}
transform: {kind: exponential, t: 10}
train: {solver: rloo, beta: 0.24, steps: 60, learning_rate: 5.0e-4}
seed: 17
"""


def _act(title: str, summary: str, gain: dict[str, float], reach: tuple, rng) -> Act:
    frontiers = (
        _frontier("train", reach[0], [1.02, 0.98, 1.0], 0.012, rng),
        _frontier("held-out", reach[1], [0.42, 0.46, 0.5], 0.022, rng),
    )
    return Act(
        title,
        summary,
        facts={
            "Model": "SmolLM2-135M-Instruct, LoRA r = 16",
            "Prompts": "24 for training, 24 held out",
            "Reference rollouts": "32 per prompt, temperature 0.8",
            "Training reward": "MiniLM head, fitted on human ratings",
            "Judges": "gold head; VADER lexicon",
            "Solver": "RLOO, 60 steps",
        },
        reward="MiniLM head",
        treatment=_TREATMENT,
        baseline=_BASELINE,
        target_kl=0.5,
        frontiers=frontiers,
        comparisons=_comparisons(gain, rng),
        ideal=_ideal(),
        decompositions=(
            _decomposition(_TREATMENT, 0.5, [0.872, 0.861, 0.848, 0.741]),
            _decomposition(_BASELINE, 0.5, [0.770, 0.768, 0.759, 0.702]),
        ),
        calibration=_calibration(48, 32, rng),
        training=_training(60, rng),
        win_rate_by_n=_by_n(),
        answers=_answers(),
        cost=(
            Stage("rollouts", 70.2, 3072, 41234),
            Stage("rewards", 7.4, 3072),
            Stage("train", 224.9, 5760, 76112, "two policies side by side"),
            Stage("evaluate", 84.0, 4608, 60310),
        ),
        manifest=Manifest(
            _EXPERIMENT,
            {"infalign": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.3.5"},
            "cpu, 2 threads, bfloat16",
            17,
            {"model": "sha256 9f2c…e1"},
        ),
        plan={"procedure": "best_of_n", "n": 4, "kl": 0.5, "transform": "exponential", "k": 32},
    )


def example_report() -> Report:
    """Two acts: one with a clear gain, one where held-out prompts show no difference."""
    rng = np.random.default_rng(5)
    return Report(
        "Aligning SmolLM2 for best-of-4",
        (
            _act(
                "Act one: one-token responses, everything exact",
                "Responses are one token, so every law can be enumerated: quantiles, KL and win "
                "rates are exact sums, and the trained policy can be put on the predicted curve.",
                {"train": 0.107, "held-out": 0.041},
                (0.99, 0.6),
                rng,
            ),
            _act(
                "Act two: free text",
                "Responses of up to twelve tokens, sampled; everything is an estimate.",
                {"train": 0.034, "held-out": 0.012},
                (0.8, 0.5),
                rng,
            ),
        ),
        summary="A small language model is trained for the way it will be decoded, best-of-4, and "
        "measured against ordinary RLHF on the same reward.",
        created="2025-01-31",
        cost=(Stage("install", 39.0), Stage("assets", 12.3, note="fetched and verified")),
    )


if __name__ == "__main__":
    print(write_report(example_report(), sys.argv[1]))
