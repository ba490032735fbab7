"""Measures what each procedure wins for the tokens it spends; adds to result.json as it goes.

python benchmarks/decoding/budgets.py [--smoke] [--task reviews|capitals] [--only NAME] [--repeats]

Two tasks for the embedded model. Film reviews: procedures choose by the training reward, answers
are judged by the gold reward against plain answers. Capitals: closed answers, judged by a list.
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infalign.decoding import (
    BlockwiseBestOfN,
    MajorityVote,
    MinimumBayesRisk,
    Selection,
    TextProcedure,
    WeightedVote,
    budget_of,
    decode,
)
from infalign.decoding.mcmc import mcmc
from infalign.decoding.search import BlockSearch, controlled
from infalign.evaluation import estimate
from infalign.prompts import Prompt
from infalign.protocols import Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN, RewindAndRepeat, SoftBestOfN

HERE = Path(__file__).parent
Row = dict[str, Any]


class Reviews:
    """Openings of film reviews, to be gone on with.

    Args:
        prompts: P.
        k: reference rollouts that calibrate, and that the value head is fitted to.
        judges: plain answers that every answer is compared with.
        beta: of the controlled policies, on the scale of quantiles.
    """

    def __init__(self, prompts: int, k: int, judges: int, beta: float = 0.1) -> None:
        from infalign.assets import asset_folder, embedded_prompts
        from infalign.decoding.search import fit_value_head
        from infalign.policies import CausalLM
        from infalign.rewards import gold_reward, training_reward

        sampling = Sampling(temperature=0.8, max_new_tokens=20, stop=('"', "\n"))
        folder = asset_folder("smollm2-135m-instruct")
        self.policy = CausalLM.from_pretrained(folder, sampling, threads=1)
        self.reward, self.gold = training_reward(), gold_reward()
        self.prompts = [Prompt.from_text(text) for text in embedded_prompts(prompts, "test")]
        self.texts = [prompt.text for prompt in self.prompts]
        rng = np.random.default_rng(0)
        plain = self.policy.sample(self.texts, k + judges, rng)
        rewards = self.reward(self.texts, [[r.text for r in row] for row in plain])
        self.calibration = EmpiricalCalibration(
            tuple(prompt.id for prompt in self.prompts), rewards[:, :k]
        )
        rest = [[r.text for r in row[k:]] for row in plain]
        self.judges = {"training": rewards[:, k:], "gold": self.gold(self.texts, rest)}
        rollouts = [row[:k] for row in plain]
        value = fit_value_head(
            self.policy, self.texts, rollouts, self.calibration.leave_one_out(), rng=rng
        )
        self.controlled = controlled(self.policy, value.on(self.policy), beta, top=20)

    def ways(self) -> Iterator[tuple[str, TextProcedure, Any]]:
        """What is compared: its family, the procedure, the policy it runs on."""
        plain = self.policy
        for n in (1, 2, 4, 8, 16, 32, 64):
            yield "best-of-N", Selection(BestOfN(n)), plain
        for n in (4, 16):
            yield "soft best-of-N", Selection(SoftBestOfN(n, 0.05)), plain
        for threshold, most in ((0.75, 8), (0.9, 16), (0.97, 64)):
            yield "rewind-and-repeat", Selection(RewindAndRepeat(threshold, most)), plain
        for n in (2, 4, 8, 16):
            yield "blockwise best-of-N, 5 tokens", BlockwiseBestOfN(n, block=5), plain
        for n in (4, 16):
            yield "blockwise, 2 completions", BlockwiseBestOfN(n, block=5, rollouts=2), plain
        for steps in (4, 16, 64):
            yield "chain towards best-of-8", mcmc(n=8, steps=steps), plain
        yield "chain towards best-of-8, 4 tries", mcmc(n=8, steps=16, tries=4), plain
        for n in (4, 16, 64):
            yield "least Bayes risk (ROUGE-L)", MinimumBayesRisk(n), plain
        for n in (4, 16):
            weighted = MinimumBayesRisk(n, beta=0.3)
            yield "least Bayes risk, weighted", weighted, plain
        for width in (2, 4):
            yield "block search", BlockSearch(width=width, expand=4, block=5), plain
        for n in (1, 4):
            yield "controlled", Selection(BestOfN(n)), self.controlled

    def row(self, procedure: TextProcedure, policy: Any, repeats: int, seed: int) -> Row:
        """Answers `repeats` times; win rates against a plain answer, ties half."""
        wins: dict[str, list[np.ndarray]] = {name: [] for name in self.judges}
        decoded = []
        for rng in np.random.default_rng(seed).spawn(repeats):
            answers = decode(
                policy,
                self.prompts,
                self.reward,
                procedure,
                calibration=self.calibration,
                rng=rng,
            )
            decoded += answers
            texts = [[one.text] for one in answers]
            for name, judge in (("training", self.reward), ("gold", self.gold)):
                mine, theirs = judge(self.texts, texts), self.judges[name]
                wins[name].append(((mine > theirs) + 0.5 * (mine == theirs)).mean(1))
        row: Row = {"acceptance": _mean(decoded, "acceptance")}
        for name, found in wins.items():
            known = estimate(np.mean(found, axis=0))
            row[name] = {"win_rate": known.value, "se": known.se}
        return row | {"budget": vars(budget_of(decoded))}


class Capitals:
    """Capitals of countries, after three examples.

    Args:
        prompts: countries.
    """

    def __init__(self, prompts: int) -> None:
        from infalign.assets import asset_folder
        from infalign.policies import CausalLM

        sampling = Sampling(temperature=1.0, max_new_tokens=10, stop=("\n", ".", ","))
        folder = asset_folder("smollm2-135m-instruct")
        self.policy = CausalLM.from_pretrained(folder, sampling, threads=1)
        lines = (HERE / "capitals.txt").read_text(encoding="utf-8").split("\n")
        pairs = [line.split(": ") for line in lines if line]
        shown = "".join(f"{country}: {capital}\n" for country, capital in pairs[:3])
        self.known = dict(pairs[3 : 3 + prompts])
        self.prompts = [Prompt.from_text(f"{shown}{country}:") for country in self.known]
        self.reward = Likelihood(self.policy)

    def ways(self) -> Iterator[tuple[str, TextProcedure, Any]]:
        """What is compared."""
        for n in (1, 4, 16, 64):
            yield "majority vote", MajorityVote(n), self.policy
        for n in (16, 64):
            yield "majority vote, early stop", MajorityVote(n, at_once=4), self.policy
        for n in (4, 16, 64):
            yield "weighted vote, β = ¼", WeightedVote(n, beta=0.25), self.policy
            yield "best-of-N by likelihood", Selection(BestOfN(n)), self.policy
        for steps in (16, 64):
            yield "QAlign, β = ¼", mcmc(0.25, steps, choose="vote"), self.policy

    def row(self, procedure: TextProcedure, policy: Any, repeats: int, seed: int) -> Row:
        """Share of right answers."""
        right, decoded = [], []
        for rng in np.random.default_rng(seed).spawn(repeats):
            answers = decode(policy, self.prompts, self.reward, procedure, rng=rng)
            pairs = zip(answers, self.known.values(), strict=True)
            right.append([float(one.text.strip() == capital) for one, capital in pairs])
            decoded += answers
        known = estimate(np.mean(right, axis=0))
        accuracy = {"accuracy": known.value, "se": known.se}
        return (
            {"acceptance": _mean(decoded, "acceptance")}
            | accuracy
            | {"budget": vars(budget_of(decoded))}
        )


class Likelihood:
    """How likely the model finds the answer, per token: a reward that needs no other model."""

    name = "likelihood"

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self._known: dict[tuple[str, str], float] = {}

    def __call__(self, prompts: Sequence[str], responses: Sequence[Sequence[str]]) -> np.ndarray:
        rows = [[(p, text) for text in texts] for p, texts in zip(prompts, responses, strict=True)]
        fresh = dict.fromkeys(pair for row in rows for pair in row if pair not in self._known)
        if fresh:
            self._known |= zip(fresh, self._score(list(fresh)), strict=True)
        return np.array([[self._known[pair] for pair in row] for row in rows])

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Mean log-probability of a token, of all pairs in one pass."""
        longest = self.policy.sampling.max_new_tokens
        # An answer that came back without its end ends with a line.
        ids = [self.policy.tokenizer(f"{y}\n", add_special_tokens=False) for _, y in pairs]
        cut = [self._until_end(tuple(one["input_ids"][:longest])) for one in ids]
        made = [[self.policy.response(one, 0.0)] for one in cut]
        nats = self.policy.log_prob([prompt for prompt, _ in pairs], made)[:, 0]
        return [float(n) / len(one) for n, one in zip(nats, cut, strict=True)]

    def _until_end(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        ends = [place for place, token in enumerate(ids) if token in self.policy.stop_ids]
        return ids[: ends[0] + 1] if ends else ids


def _mean(decoded: Sequence[Any], detail: str) -> float | None:
    known = [one.details[detail] for one in decoded if detail in one.details]
    return float(np.mean(known)) if known else None


def measure(
    task: Any,
    repeats: int,
    known: dict[str, Row],
    keep: Callable[[], None],
    only: str,
    most: float = float("inf"),
) -> None:
    """Every way not measured yet, kept as soon as it is; none that samples more than `most`."""
    for seed, (family, procedure, policy) in enumerate(task.ways()):
        label = f"{family} | {procedure.name}"
        if label in known or only not in label or procedure.most > most:
            continue
        start, processor = time.perf_counter(), time.process_time()
        row = task.row(procedure, policy, repeats, seed)
        known[label] = row | {
            "seconds": time.perf_counter() - start,
            "processor_seconds": time.process_time() - processor,
        }
        print(label, json.dumps(known[label]), file=sys.stderr, flush=True)
        keep()


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny; writes nothing")
    parser.add_argument("--task", choices=("reviews", "capitals"), action="append")
    parser.add_argument("--only", default="", help="ways whose name contains this")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    path = HERE / "budgets.json"
    result = json.loads(path.read_text()) if path.exists() and not given.smoke else {}
    sizes = (
        {"reviews": (2, 8, 8), "capitals": (2,)}
        if given.smoke
        else {
            "reviews": (32, 64, 128),
            "capitals": (40,),
        }
    )
    makers: dict[str, Callable[..., Any]] = {"reviews": Reviews, "capitals": Capitals}

    def keep() -> None:
        if not given.smoke:
            path.write_text(json.dumps(result, indent=1) + "\n")

    for name in given.task or makers:
        task = makers[name](*sizes[name])
        part = result.setdefault(name, {"setting": {"sizes": sizes[name], "ways": {}}})
        part["setting"] = {"sizes": sizes[name], "repeats": given.repeats} | {
            package: importlib.metadata.version(package) for package in ("torch", "transformers")
        }
        repeats = 1 if given.smoke else given.repeats
        most = 8 if given.smoke else float("inf")
        measure(task, repeats, part.setdefault("ways", {}), keep, given.only, most)
    if given.smoke:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
