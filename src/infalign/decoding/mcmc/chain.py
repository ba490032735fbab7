"""The chain engine: any resampler, any kernel, any target, several chains side by side.

From a state y, erase a part, let the policy write it again, and move there or stay, so that the
target stays invariant. Best-of-n looks for the reward's maximum, also where the reward is wrong; a
chain draws from the aligned policy, and more steps only bring it closer.

A state that is not left counts again: states, not proposals, are draws from the target.
"""

import dataclasses
from typing import Literal, final

import numpy as np

from infalign.decoding.counts import refuse_count
from infalign.decoding.mcmc.kernels import KERNELS
from infalign.decoding.mcmc.resamplers import Resampler, SuffixResample
from infalign.decoding.mcmc.targets import RewardTilt, Target
from infalign.decoding.mcmc.walk import Walk
from infalign.decoding.metering import Meter
from infalign.decoding.text_procedure import Budget, Decoded, Draw, Score, Steps, TextProcedure
from infalign.decoding.voting import (
    Extract,
    Utility,
    bayes_risk,
    extract_from_name,
    utility_from_name,
    vote,
)
from infalign.policies.alignment import warn_of_second_tilt
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler

__all__ = ["MCMC", "Choose"]

Choose = Literal["last", "vote", "bayes_risk"]
"""How the answer is found among the states."""


@final
@dataclasses.dataclass(frozen=True)
class MCMC(TextProcedure):
    """Chains whose states approach the target, and an answer from their states.

    Exact for any number of tries and any cap on the length of the whole response.
    `Decoded.candidates` holds all states, chain by chain, `rounds` + 1 of each; `Decoded.details`
    the acceptance rate, effective samples and R̂ of the rewards.

    Where the reward has no number for a proposal, it is refused, the chain kept and the proposal
    listed in ``details["unscored"]``. A reward of −∞ forbids a response, silently.

    Raises:
        ValueError: counts that are none, a burn-in beyond the end, an unknown kernel or choice,
            several tries with `mh`, or what the choice does not look at.

    Reference:
        Sample, Don't Search: Rethinking Test-Time Alignment for Language Models
        (arXiv:2504.03790); for masked models Reward-Guided Iterative Refinement in Diffusion
        Models at Test-Time (arXiv:2502.14944), here with finished responses only and the present
        state among the candidates, which makes it exact.

    Example:
        >>> MCMC(RewardTilt(0.5), rounds=64).name
        'mcmc, 64 steps, reward/0.5'
    """

    target: Target = dataclasses.field(default_factory=RewardTilt)
    """What the chains walk towards."""
    rounds: int = 64
    """T, steps of each chain. ≥ 0; 0 is plain sampling."""
    burn_in: int = 0
    """States, from the first on, that cannot become the answer. ≤ `rounds`."""
    chains: int = 1
    """Independent chains for each prompt. ≥ 1."""
    resampler: Resampler = dataclasses.field(default_factory=SuffixResample)
    """What is erased."""
    kernel: Literal["mh", "isir"] = "mh"
    """Metropolis–Hastings, or i-SIR: the present state among `tries` new ones."""
    tries: int = 1
    """New candidates in each step, all from the same erased state. ≥ 1; 1 for `mh`."""
    choose: Choose = "last"
    """The last state of a chain (a draw from its law), a majority vote, or minimum Bayes risk."""
    extract: Extract | str | None = None
    """What a text says, for the vote: a function or a name; None: the stripped text."""
    utility: Utility | str | None = None
    """For minimum Bayes risk, which needs one: a utility or its name."""

    def __post_init__(self) -> None:
        refuse_count(self.rounds, "rounds", "mcmc", least=0)
        refuse_count(self.burn_in, "burn_in", "mcmc", least=0)
        refuse_count(self.chains, "chains", "mcmc")
        refuse_count(self.tries, "tries", "mcmc")
        if self.burn_in > self.rounds:
            raise ValueError(
                f"burn_in is {self.burn_in} of {self.rounds} steps; a state must be left to "
                "answer with. Make more steps, or leave out fewer."
            )
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel is {self.kernel!r}; there are {', '.join(KERNELS)}.")
        if self.kernel == "mh" and self.tries > 1:
            raise ValueError(
                f"tries is {self.tries} with the kernel mh, which looks at one candidate; use "
                "kernel='isir' for several."
            )
        if self.choose not in ("last", "vote", "bayes_risk"):
            raise ValueError(f"choose is {self.choose!r}; there are last, vote, bayes_risk.")
        if (self.utility is None) == (self.choose == "bayes_risk"):
            raise ValueError(
                f"choose is {self.choose!r} and utility {self.utility}; bayes_risk, and only it, "
                "compares answers by a utility: give both or neither."
            )
        if self.extract is not None and self.choose != "vote":
            raise ValueError(f"extract came with choose = {self.choose!r}; only vote looks at it.")
        if isinstance(self.extract, str):
            extract_from_name(self.extract)
        if isinstance(self.utility, str):
            utility_from_name(self.utility)

    @property
    def name(self) -> str:
        return f"mcmc, {self.rounds} steps, {self.target.name}"

    @property
    def most(self) -> int:
        return self.chains * (1 + self.rounds * self.tries)

    @property
    def needs_calibration(self) -> bool:
        return self.target.needs_calibration

    @property
    def needs_beginnings(self) -> bool:
        return self.rounds > 0 and self.resampler.needs_beginnings

    @property
    def needs_gaps(self) -> bool:
        return self.rounds > 0 and self.resampler.needs_gaps

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        """Warn where the policy was aligned by the very reward the chain tilts by."""
        if reward is not None:
            warn_of_second_tilt(policy, reward.name, *self.target.tilt, "the chain")

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        draw, meter = Draw(self.chains), Meter()
        (starts,) = yield draw
        meter.count(draw, [starts])
        walk = Walk(starts, (yield _score(starts)), self.target)
        for _ in range(self.rounds):
            draw = self.resampler.draw(walk.states, self.tries, rng)
            proposals = yield draw
            meter.count(draw, proposals)
            flat = [response for row in proposals for response in row]
            scored = yield _score(flat)
            now, then = (self.resampler.log_choices(some) for some in (walk.states, flat))
            log_choices = np.concatenate([now[:, None], then.reshape(-1, self.tries)], axis=1)
            walk.move(proposals, scored, KERNELS[self.kernel], log_choices, rng)
        return self._decoded(prompt, walk, meter.spent, rng)

    def _decoded(
        self, prompt: Prompt, walk: Walk, spent: Budget, rng: np.random.Generator
    ) -> Decoded:
        states, quantiles = walk.path(), walk.quantiles()
        index = self._choose(states, walk.can_be_answer(self.burn_in), prompt, rng)
        return Decoded(
            prompt.id,
            states[index].text,
            index,
            states,
            tuple(walk.rewards().ravel().tolist()),
            spent,
            None if quantiles is None else tuple(quantiles.ravel().tolist()),
            walk.report(self.burn_in),
        )

    def _choose(
        self,
        states: tuple[Response, ...],
        allowed: np.ndarray,
        prompt: Prompt,
        rng: np.random.Generator,
    ) -> int:
        """Place of the answer among the states."""
        if self.choose == "last":
            allowed[:, :-1] = 0.0
        pool = np.flatnonzero(allowed)
        if not len(pool):
            raise ValueError(
                f"no state of the chains for prompt {prompt.id!r} has a reward that is a finite "
                "number, so none can be the answer. Repair the reward, or make more steps."
            )
        if self.choose == "last":
            return int(rng.choice(pool))
        texts, weights = [states[i].text for i in pool], np.ones(len(pool))
        utility, extract = self.utility, self.extract or "text"
        if utility is not None:
            utility = utility_from_name(utility) if isinstance(utility, str) else utility
            return int(pool[bayes_risk(texts, weights, utility, rng)])
        key = extract_from_name(extract) if isinstance(extract, str) else extract
        return int(pool[vote([key(text) for text in texts], weights, rng)])


def _score(responses: list[Response]) -> Score:
    return Score(tuple(response.text for response in responses))
