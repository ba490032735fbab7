"""Log-probabilities and divergences of given responses, read off packed rows."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from infalign.policies.next_token import Head, next_token_statistics
from infalign.policies.token_tree import PackedRows, pack
from infalign.protocols import Response

__all__ = [
    "Scores",
    "check_shape",
    "checked_starts",
    "hidden_states",
    "in_chunks",
    "masks_work",
    "path_scores",
]

_BATCH_TOKENS = 2048
"""Tokens run through the body at a time."""
_CHUNK_TOKENS = 4096
"""Response tokens scored at a time when no gradient is wanted."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one pass over responses yields, float64, nats, "P K" each."""

    log_prob: torch.Tensor
    """log π(y|x), differentiable where gradients are enabled."""
    reference_log_prob: torch.Tensor
    """log π_ref(y|x), without gradient."""
    kl: torch.Tensor
    """Σ_t KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t)): Rao–Blackwellised, unbiased for KL(π‖π_ref) over
    responses drawn from π; its gradient is that of the next-token laws with y held fixed."""


def check_shape(prompts: Sequence[Any], responses: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """P and K, or a refusal.

    Raises:
        ValueError: no prompt, another number of rows than prompts, or rows of unequal length.
    """
    counts = {len(row) for row in responses}
    if not prompts or len(responses) != len(prompts) or len(counts) != 1 or counts == {0}:
        raise ValueError(
            f"{len(prompts)} prompts came with {len(responses)} lists of {sorted(counts)} "
            "responses; each prompt needs one list, all of the same length of at least 1."
        )
    return len(prompts), counts.pop()


def checked_starts(
    starts: Sequence[Sequence[int]], responses: Sequence[Sequence[Response]]
) -> list[int]:
    """Where scoring starts within each response, in one list.

    Raises:
        ValueError: another shape than the responses', or a start outside its response.
    """
    if [len(row) for row in starts] != [len(row) for row in responses]:
        raise ValueError(
            f"starts have rows of {[len(row) for row in starts]} and responses of "
            f"{[len(row) for row in responses]}; each response needs one start."
        )
    for p, row in enumerate(starts):
        for k, start in enumerate(row):
            if not 0 <= start <= len(responses[p][k].token_ids):
                raise ValueError(
                    f"start [{p}][{k}] is {start}; its response has "
                    f"{len(responses[p][k].token_ids)} tokens: give 0 to that."
                )
    return [int(start) for row in starts for start in row]


@torch.no_grad()
def in_chunks(
    score: Callable[..., Scores], prompts: Sequence[str], responses: Sequence[Sequence[Response]]
) -> Scores:
    """`score` of some prompts at a time, without gradient, on the CPU."""
    check_shape(prompts, responses)
    sizes = [sum(len(response.token_ids) for response in row) for row in responses]
    parts = [score(prompts[low:high], responses[low:high]) for low, high in _ranges(sizes)]
    fields = zip(*(vars(part).values() for part in parts), strict=True)
    return Scores(*(torch.cat(values).cpu() for values in fields))


def _ranges(sizes: Sequence[int], limit: int = _CHUNK_TOKENS) -> Iterator[tuple[int, int]]:
    """Consecutive ranges whose sizes sum to at most `limit`, or hold one item."""
    low, total = 0, 0
    for place, size in enumerate(sizes):
        if place > low and total + size > limit:
            yield low, place
            low, total = place, 0
        total += size
    yield low, len(sizes)


def hidden_states(body: Any, packed: PackedRows, device: torch.device) -> torch.Tensor:
    """The body's last hidden state at the nodes that are read: M D, float32."""
    width = packed.input_ids.shape[1]
    step = max(1, _BATCH_TOKENS // width)
    states = []
    for start in range(0, len(packed.input_ids), step):
        rows = slice(start, start + step)
        out = body(
            input_ids=torch.from_numpy(packed.input_ids[rows]).to(device),
            position_ids=torch.from_numpy(packed.position_ids[rows]).to(device),
            attention_mask=_mask(packed, rows, device, body.dtype),
            use_cache=False,
        ).last_hidden_state
        inside = packed.nodes[
            (packed.nodes >= start * width) & (packed.nodes < (start + len(out)) * width)
        ]
        flat = torch.from_numpy(inside - start * width).to(device)
        states.append(out.flatten(0, 1)[flat].float())
    return torch.cat(states)


def _mask(
    packed: PackedRows, rows: slice, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    if packed.mask is not None:
        seen = torch.from_numpy(packed.mask[rows, None]).to(device)
        # Added to the scores, not boolean: every attention implementation understands that.
        hidden = torch.zeros(seen.shape, dtype=dtype, device=device)
        return hidden.masked_fill(~seen, torch.finfo(dtype).min)
    lengths = torch.from_numpy(packed.lengths[rows])
    return (torch.arange(packed.input_ids.shape[1]) < lengths[:, None]).long().to(device)


def path_scores(
    hidden: torch.Tensor,
    reference_hidden: torch.Tensor | None,
    packed: PackedRows,
    head: Head,
    temperature: float,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums along each response of log π, log π_ref and the next-token KL: float64, `count` each.

    The reference's two are NaN without its hidden states.
    """
    sources, targets, responses, edges = (
        torch.from_numpy(array).to(hidden.device)
        for array in (packed.sources, packed.targets, packed.path_responses, packed.path_edges)
    )

    def along_paths(values: torch.Tensor) -> torch.Tensor:
        total = values.new_zeros(count, dtype=torch.float64)
        return total.index_add(0, responses, values[edges].double())

    log_probs, kl = next_token_statistics(
        hidden, head, temperature, sources, targets, reference_hidden
    )
    if reference_hidden is None:
        unknown = torch.full((count,), float("nan"), dtype=torch.float64, device=hidden.device)
        return along_paths(log_probs), unknown, unknown
    with torch.no_grad():
        reference, _ = next_token_statistics(reference_hidden, head, temperature, sources, targets)
    return along_paths(log_probs), along_paths(reference), along_paths(kl[sources])


@torch.no_grad()
def masks_work(body: Any, device: torch.device) -> bool:
    """Whether tree-packed rows give the states that plain rows give, on a small example."""
    contexts, responses = [[0, 1, 1, 0]] * 2, [[0, 1, 0], [1, 0, 0]]
    plain = hidden_states(body, pack(contexts, responses, share=False), device)
    try:
        tree = hidden_states(body, pack(contexts, responses), device)
    except Exception as error:  # each architecture fails in its own way
        reason = f"{type(error).__name__}: {error}"
    else:
        # The tree's five nodes: the context's last, then two of each response.
        difference = float((tree[[0, 1, 2, 0, 3, 4]] - plain).abs().max())
        if difference < 0.05 * float(plain.abs().max()):
            return True
        reason = f"hidden states differ by {difference:.2g}"
    _log.warning(
        "this architecture does not honour a custom attention mask (%s), so responses are scored "
        "one row each: correct, but slower.",
        reason,
    )
    return False
