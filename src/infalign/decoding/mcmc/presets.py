"""Chains by a few numbers: what the command line, an experiment file and a server speak."""

from infalign.decoding.mcmc.chain import MCMC, Choose
from infalign.decoding.mcmc.resamplers import MaskResample, Resampler, SuffixResample
from infalign.decoding.mcmc.targets import BestOfNTilt, CalibratedTilt, RewardTilt, Target
from infalign.decoding.voting import Extract, Utility
from infalign.quantile.names import transform_from_name

__all__ = ["mcmc", "qalign"]


def mcmc(
    beta: float | None = None,
    steps: int = 64,
    *,
    n: float | None = None,
    transform: str | None = None,
    chains: int = 1,
    burn_in: int = 0,
    tries: int = 1,
    mask: int | float | None = None,
    choose: Choose = "last",
    extract: Extract | str | None = None,
    utility: Utility | str | None = None,
) -> MCMC:
    """The chain towards the tilt at β, of the raw or a calibrated reward, or towards best-of-n.

    Args:
        beta: of the tilt; 1 by default. Not with `n`.
        steps: of each chain.
        n: imitates best-of-n; needs a calibration.
        transform: name of Φ: tilts by Φ(u)/β; needs a calibration. None: by r/β.
        chains: side by side, for each prompt.
        burn_in: states left out of the choice.
        tries: candidates in each step; above 1 by i-SIR.
        mask: sites erased in each step (a float: their share), for masked models; None: a suffix.
        choose: `last`, `vote` or `bayes_risk`.
        extract: what a text says, for `vote`; a function or one of `EXTRACT_NAMES`.
        utility: for `bayes_risk`; a utility or one of `UTILITY_NAMES`.

    Raises:
        ValueError: `n` together with β or a transform; else see :class:`MCMC`.

    Example:
        >>> mcmc(0.5, steps=8).name, mcmc(n=4, steps=8).name
        ('mcmc, 8 steps, reward/0.5', 'mcmc, 8 steps, best-of-4')
    """
    resampler: Resampler = SuffixResample()
    if mask is not None:
        resampler = MaskResample(mask) if isinstance(mask, int) else MaskResample(fraction=mask)
    return MCMC(
        _target(beta, n, transform),
        steps,
        burn_in,
        chains,
        resampler,
        "mh" if tries == 1 else "isir",
        tries,
        choose,
        extract,
        utility,
    )


def _target(beta: float | None, n: float | None, transform: str | None) -> Target:
    if n is not None and (beta is not None or transform is not None):
        raise ValueError(
            f"n is {n}, beta {beta} and transform {transform} for mcmc; give n for the chain that "
            "imitates best-of-n, or beta (and a transform) for a tilt, not both."
        )
    if n is not None:
        return BestOfNTilt(n)
    strength = 1.0 if beta is None else beta
    if transform is None:
        return RewardTilt(strength)
    return CalibratedTilt(transform_from_name(transform), strength)


def qalign(
    beta: float = 1.0,
    steps: int = 64,
    *,
    burn_in: int = 0,
    extract: Extract | str | None = None,
    utility: Utility | str | None = None,
) -> MCMC:
    """QAlign: Metropolis–Hastings on suffixes, and a vote among the states.

    Args:
        beta: KL coefficient in the reward's unit.
        steps: of the chain.
        burn_in: states left out of the vote.
        extract: what a text says, for a majority vote; None: the stripped text.
        utility: minimum Bayes risk by this in place of the majority vote.

    Reference:
        Sample, Don't Search: Rethinking Test-Time Alignment for Language Models
        (arXiv:2504.03790).
    """
    choose: Choose = "vote" if utility is None else "bayes_risk"
    return mcmc(beta, steps, burn_in=burn_in, choose=choose, extract=extract, utility=utility)
