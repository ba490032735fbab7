"""Next-token laws from hidden states: a float32 head, read only where a response is.

A vocabulary of fifty thousand makes the head as dear as the body, so it is applied only at the
positions that predict a response token, in slices, and never kept: what the backward pass needs of
V logits is one vector as long as the hidden state. For z = W·h/T, the gradient of log Σ exp z with
respect to h is the mean of W's rows under the next-token law, which the forward pass takes while
the probabilities are at hand.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["Head", "draw", "draw_next", "next_token_statistics"]

_SLICE = 256
"""Hidden states per slice: 256 × 49,152 float32 logits are 50 MB."""
_BLOCK = 256
"""Tokens per block of the two-level inverse transform."""
_DRAWN = 128
"""Rows drawn for at a time: buffers of 25 MB are kept by the allocator, larger ones may not be."""
_FEW = 3
"""Up to so many states, a float32 product takes the time of reading W, and bfloat16 units no less.
"""
_PRECISION = getattr(torch.backends.mkldnn, "matmul", None)
"""Says which units float32 products may use; None in older versions of torch."""


@functools.cache
def _pays_in_bfloat16() -> bool:
    """Whether two bfloat16 products cost less than one in float32: with matrix units (AMX) alone.

    Vector instructions for bfloat16 are no faster than float32's at these shapes, so two products
    take nearly twice as long.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return _PRECISION is not None and bool(capabilities.get("amx_bf16"))


@contextlib.contextmanager
def _bfloat16_products() -> Iterator[None]:
    """Within the block, float32 products on a CPU may round their factors to bfloat16."""
    assert _PRECISION is not None
    before = _PRECISION.fp32_precision
    _PRECISION.fp32_precision = "bf16"
    try:
        yield
    finally:
        _PRECISION.fp32_precision = before


@dataclasses.dataclass(frozen=True)
class Head:
    """The last linear map of a language model, in float32, with the temperature divided in."""

    weight: torch.Tensor
    """V D, float32, without gradient."""
    bias: torch.Tensor | None = None
    """V."""
    scale: float = 1.0
    """Logits are multiplied by it (Cohere, Granite)."""
    softcap: float | None = None
    """Logits become c·tanh(logits/c) (Gemma 2)."""

    def logits(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Logits before temperature; of all V tokens, or of `tokens` "M C" for hidden "M D"."""
        hidden = hidden.float()
        if tokens is None:
            logits = self._product(hidden)
            logits = logits if self.bias is None else logits + self.bias
        else:
            logits = torch.einsum("md,mcd->mc", hidden, self.weight[tokens])
            logits = logits if self.bias is None else logits + self.bias[tokens]
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def _product(self, hidden: torch.Tensor) -> torch.Tensor:
        """W·h. Of states that come from a bfloat16 body, by bfloat16 units where the CPU has AMX.

        Such states are bfloat16 numbers, and W is the sum of two (to 2⁻¹⁷ of each entry), or one if
        it was stored so; their products summed in float32 are as exact as float32's own.
        """
        many = hidden.numel() > _FEW * hidden.shape[-1]
        pays = many and hidden.device.type == "cpu" and _pays_in_bfloat16()
        if not pays or not torch.equal(hidden.bfloat16().float(), hidden):
            return hidden @ self.weight.T
        high, low = self._halves
        with _bfloat16_products():
            logits = torch.nn.functional.linear(hidden, high)
            return logits if low is None else torch.addmm(logits, hidden, low.T, out=logits)

    @functools.cached_property
    def _halves(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        high = self.weight.bfloat16().float()
        if torch.equal(high, self.weight):
            return self.weight, None
        return high, (self.weight - high).bfloat16().float()

    def slope(self, logits: torch.Tensor) -> torch.Tensor:
        """Derivative of the logits with respect to W·h."""
        if self.softcap is None:
            return logits.new_tensor(self.scale).expand_as(logits)
        return self.scale * (1 - (logits / self.softcap) ** 2)


def next_token_statistics(
    hidden: torch.Tensor,
    head: Head,
    temperature: float,
    sources: torch.Tensor,
    targets: torch.Tensor,
    reference_hidden: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of chosen next tokens, and each state's KL to a reference's next-token law.

    Both are differentiable with respect to `hidden`.

    Args:
        hidden: M D, states that predict.
        head: shared by policy and reference.
        temperature: divides the logits.
        sources: E, increasing: which state predicts.
        targets: E, the token predicted.
        reference_hidden: M D, the reference's states at the same places, or None.

    Returns:
        log-probabilities "E" and KL "M", in nats; the KL is zeros without a reference.
    """
    return _Statistics.apply(  # type: ignore[no-any-return]
        hidden.float(), head, temperature, sources, targets, reference_hidden
    )


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: Head,
        temperature: float,
        sources: torch.Tensor,
        targets: torch.Tensor,
        reference_hidden: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = ctx.needs_input_grad[0]
        log_probs = hidden.new_empty(len(targets))
        slopes = torch.empty_like(log_probs)
        kl = hidden.new_zeros(len(hidden))
        mean, kl_gradient = torch.zeros_like(hidden), torch.zeros_like(hidden)
        for start in range(0, len(hidden), _SLICE):
            rows = slice(start, start + _SLICE)
            logits = head.logits(hidden[rows])
            law = torch.log_softmax(logits / temperature, dim=-1)
            low, high = torch.searchsorted(sources, sources.new_tensor([start, start + _SLICE]))
            here, tokens = sources[low:high] - start, targets[low:high]
            log_probs[low:high] = law[here, tokens]
            slope = head.slope(logits)
            slopes[low:high] = slope[here, tokens]
            if not wanted and reference_hidden is None:
                continue
            probabilities = law.exp()
            if wanted:
                mean[rows] = (probabilities * slope) @ head.weight
            if reference_hidden is None:
                continue
            law -= torch.log_softmax(head.logits(reference_hidden[rows]) / temperature, dim=-1)
            kl[rows] = (probabilities * law).sum(-1)
            if wanted:
                weights = probabilities * (law - kl[rows, None]) * slope
                kl_gradient[rows] = weights @ head.weight
        if wanted:
            ctx.head, ctx.temperature = head, temperature
            ctx.save_for_backward(sources, targets, slopes, mean, kl_gradient)
        return log_probs, kl

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_log_probs, of_kl = gradients
        sources, targets, slopes, mean, kl_gradient = ctx.saved_tensors
        of_hidden = of_kl[:, None] * kl_gradient
        chosen = ctx.head.weight[targets] * slopes[:, None] - mean[sources]
        of_hidden.index_add_(0, sources, of_log_probs[:, None] * chosen)
        return of_hidden / ctx.temperature, None, None, None, None, None


def draw_next(
    head: Head, hidden: torch.Tensor, temperature: float, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw m next tokens of each of R hidden states; see :func:`draw`. The logits are never kept.

    Args:
        head: hidden state to logits.
        hidden: R D.
        temperature: divides the logits.
        uniforms: R m in [0, 1), float64.

    Returns:
        tokens "R m" and their log-probabilities "R m" (float64, nats).
    """
    parts = []
    for start in range(0, len(hidden), _DRAWN):
        rows = slice(start, start + _DRAWN)
        logits = head.logits(hidden[rows]).div_(temperature)  # in place: fresh pages are dear
        weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
        parts.append(_draw(weights, uniforms[rows]))
    tokens, log_probs = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(log_probs)


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw tokens by inverting the cumulative law, with one uniform number a draw.

    Two levels, blocks of tokens and then tokens of one block. A block is summed in float32, the
    blocks in float64, so that the law is the softmax to float32 accuracy at any vocabulary. One
    uniform a token, against V Gumbel numbers, is cheaper and makes a draw independent of how rows
    are batched.

    Args:
        logits: R V, temperature already divided out.
        uniforms: R m in [0, 1), float64.

    Returns:
        tokens "R m" and their log-probabilities "R m" (float64, nats).
    """
    return _draw((logits - logits.amax(-1, keepdim=True)).exp_(), uniforms)


def _draw(weights: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`draw` from probabilities up to a factor, the largest of which is 1."""
    padding = -weights.shape[-1] % _BLOCK
    if padding:
        weights = torch.nn.functional.pad(weights, (0, padding))
    blocks = weights.unflatten(-1, (-1, _BLOCK))
    ends = blocks.sum(-1).double().cumsum(-1)
    heights = uniforms * ends[:, -1:]
    block = _invert(ends, heights)
    starts = torch.nn.functional.pad(ends, (1, 0)).gather(1, block)
    rows = torch.arange(len(weights), device=weights.device)[:, None]
    inside = blocks[rows, block].double().cumsum(-1)
    place = _invert(inside, (heights - starts)[..., None])[..., 0]
    tokens = block * _BLOCK + place
    return tokens, weights.gather(1, tokens).double().log() - ends[:, -1:].log()


def _invert(ends: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """First index whose cumulative weight exceeds the height, never one of zero weight."""
    index = torch.searchsorted(ends, heights, right=True)
    last = torch.searchsorted(ends, ends[..., -1:].contiguous())
    return torch.minimum(index, last)  # rounding may lift a height to the very top
