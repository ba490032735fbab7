"""Your own Python function as a reward."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from infalign.rewards.scoring import Progress

if TYPE_CHECKING:  # engines ask a function where nothing but numpy is installed
    from jaxtyping import Float

__all__ = ["FunctionReward", "RewardRaised", "RewardUnfit"]

_PROMPTS = 16
"""Prompts per call of the function, so that progress is seen and a failure loses little."""

_CONTRACT = "It must return one number per response, as P lists of K."


@final
class RewardRaised(RuntimeError):
    """A reward function raised; the cause is attached.

    Args:
        message: what happened, at which prompt, and what to do.
        brief: what happened only, for logs in which nobody's words may stand.
    """

    def __init__(self, message: str, brief: str) -> None:
        super().__init__(message)
        self.brief = brief


@final
class RewardUnfit(ValueError):
    """A reward function returned what is no reward of each response.

    Args:
        message: what came, at which prompt, and what is needed.
        brief: what came only, for logs in which nobody's words may stand.
    """

    def __init__(self, message: str, brief: str) -> None:
        super().__init__(message)
        self.brief = brief


class FunctionReward:
    """function(prompts, responses) → rewards, one number per response.

    The function receives P prompts and P lists of K response texts and returns P lists of K
    numbers, higher better. It is called with a few prompts at a time, in order.

    Args:
        function: a callable, or `module:function` to import (dotted names on both sides).
        name: the reward's column in the store and the report; by default the function's name.
        must_be_finite: refuse NaN and infinities here; otherwise whoever asked for the reward
            decides what they mean (a chain keeps its state and goes on).

    Raises:
        ValueError: not importable, or not a function.

    Example:
        >>> def short(prompts, responses):
        ...     return [[-len(response) for response in row] for row in responses]
        >>> FunctionReward(short)(["Hi"], [["Hello!", "Yo"]]).tolist()
        [[-6.0, -2.0]]
    """

    def __init__(
        self,
        function: str | Callable[..., Any],
        name: str | None = None,
        *,
        must_be_finite: bool = True,
    ) -> None:
        self._must_be_finite = must_be_finite
        self._function = _imported(function) if isinstance(function, str) else function
        self.name = name or getattr(self._function, "__name__", "function")
        self.source = _source(self._function)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[Sequence[str]],
        progress: Progress | None = None,
    ) -> "Float[np.ndarray, 'P K']":
        """Rewards of K responses to each of P prompts.

        Raises:
            ValueError: the function returned another shape, or a number that is not finite.
            RuntimeError: the function raised or exited; the message names the prompt, the cause is
                attached.
        """
        parts = []
        for start in range(0, len(prompts), _PROMPTS):
            stop = min(start + _PROMPTS, len(prompts))
            part = [list(row) for row in responses[start:stop]]
            parts.append(self._call(list(prompts[start:stop]), part, start))
            if progress is not None:
                progress(stop, len(prompts))
        return np.concatenate(parts) if parts else np.zeros((0, 0))

    def _call(self, prompts: list[str], responses: list[list[str]], start: int) -> np.ndarray:
        try:
            returned = self._function(prompts, responses)
        except (Exception, SystemExit) as error:  # a function that exits must not end the program
            index = self._culprit(prompts, responses)
            brief = f"the reward function {self.name} raised {type(error).__name__}: {error}"
            raise RewardRaised(
                f"{brief} on prompt {start + index} ({prompts[index][:60]!r}). Mend the function "
                "and run again; rewards computed so far are kept where a store is used.",
                brief,
            ) from error
        return self._checked(returned, prompts, responses, start)

    def _culprit(self, prompts: list[str], responses: list[list[str]]) -> int:
        """The first prompt that fails alone; the first of all where none does."""
        for index, (prompt, row) in enumerate(zip(prompts, responses, strict=True)):
            try:
                self._function([prompt], [row])
            except (Exception, SystemExit):
                return index
        return 0

    def _checked(
        self, returned: Any, prompts: list[str], responses: list[list[str]], start: int
    ) -> np.ndarray:
        try:
            rows = [[float(reward) for reward in row] for row in returned]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the reward function {self.name} returned {type(returned).__name__} that is no "
                f"table of numbers ({error}). {_CONTRACT}"
            ) from error
        lengths, wanted = [len(row) for row in rows], [len(row) for row in responses]
        if lengths != wanted:
            index = next(i for i, n in enumerate([*wanted, 0]) if lengths[i : i + 1] != [n])
            index = min(index, len(wanted) - 1)
            brief = (
                f"the reward function {self.name} returned {len(lengths)} lists of lengths "
                f"{lengths[:4]} for {len(prompts)} prompts with {wanted[:4]} responses"
            )
            where = f"prompt {start + index} ({prompts[index][:60]!r})"
            raise RewardUnfit(f"{brief}; first wrong at {where}. {_CONTRACT}", brief)
        rewards = np.array(rows)
        if self._must_be_finite and not np.isfinite(rewards).all():
            index, k = map(int, np.argwhere(~np.isfinite(rewards))[0])
            brief = f"the reward function {self.name} returned {rewards[index, k]} for response {k}"
            where = f"prompt {start + index} ({prompts[index][:60]!r})"
            raise RewardUnfit(
                f"{brief} of {where}; rewards must be finite, because they are ranked.", brief
            )
        return rewards


def _imported(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(
            f"reward function {path!r} is not `module:function`, as in `mine:brevity`."
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"reward function {path!r} could not be imported: {error}. Give `module:function` with "
            "the module on the Python path (set PYTHONPATH, or run from its folder)."
        ) from error
    if not callable(found):
        kind = type(found).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise ValueError(f"{path!r} is {article} {kind}, not a function.")
    return found


def _source(function: Callable[..., Any]) -> str | None:
    """The text of the function's module, by which a change is noticed; None where it has none."""
    try:
        return inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        return None
