"""A Hugging Face masked language model as a policy: it fills sites in random order.

Responses have a fixed number of tokens. All sites start masked, or those that are redrawn; one
after the other, in an order drawn at random, each is drawn given all that is written. The
conditionals of a learned masked model need not belong to one law, so a chain that erases and
redraws sites leaves the law of whole samples invariant only approximately;
:class:`.MaskedTable` is exact.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int

from infalign.policies import loading
from infalign.policies.counts import refuse_count, refuse_draw
from infalign.protocols import Response, Sampling

__all__ = ["MaskedLM"]

Gaps = Sequence[int | None]


class MaskedLM:
    """A masked language model that answers with responses of L tokens.

    It reads prompt and response as the tokenizer joins a pair of texts. Special tokens are never
    drawn. `log_prob` of its responses is that along the order in which they were drawn.

    Args:
        model: a Hugging Face masked LM in memory; :meth:`from_pretrained` loads one.
        tokenizer: its tokenizer, with a mask token.
        length: L ≥ 1, tokens of every response.
        temperature: logits are divided by it. > 0.
        rows: sequences read side by side.
        name: what a figure's legend shows.
        source: the folder or model id of the weights, for the fingerprint.

    Raises:
        ValueError: a length, temperature or number of rows that is none, or a tokenizer without a
            mask token.

    Reference:
        BERT has a Mouth, and It Must Speak (arXiv:1902.04094); order-agnostic sampling as in
        Autoregressive Diffusion Models (arXiv:2110.02037).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        length: int,
        *,
        temperature: float = 1.0,
        rows: int = 128,
        name: str = "masked-lm",
        source: str | None = None,
    ) -> None:
        refuse_count(length, "length", f"{name} (tokens of every response)")
        refuse_count(rows, "rows", f"{name} (sequences read side by side)")
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"the tokenizer of {name} has no mask token; only masked models fill gaps. Use "
                "CausalLM for one that writes from left to right."
            )
        self.name, self.tokenizer, self.length = name, tokenizer, length
        self._sampling = Sampling(temperature=temperature, max_new_tokens=length)
        self._rows, self._source = rows, source
        self.module: torch.nn.Module = model.eval().requires_grad_(False)
        self._window = getattr(model.config, "max_position_embeddings", None)
        self._allowed = np.zeros(int(model.config.vocab_size), dtype=bool)
        self._allowed[: len(tokenizer)] = True
        marks = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
        self._allowed[[*marks, *tokenizer.all_special_ids]] = False
        self._weights_hash: str | None = None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, length: int, *, device: str | None = None, **options: Any
    ) -> Self:
        """Load from a local folder or a model id; `options` are those of the constructor.

        Raises:
            ValueError: nothing loadable there.
        """
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(str(path))
            model: Any = AutoModelForMaskedLM.from_pretrained(str(path), dtype=torch.float32)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"no masked language model could be loaded from {str(path)!r}: {error}. Give a "
                "local folder with config.json, weights and tokenizer, or a model id your hub can "
                "serve."
            ) from error
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        named: dict[str, Any] = {"name": Path(path).name, "source": str(path)}
        return cls(model, tokenizer, length, **(named | options))

    @property
    def sampling(self) -> Sampling:
        """Temperature, and the length of every response."""
        return self._sampling

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and the length."""
        if self._weights_hash is None:
            self._weights_hash = loading.weights_hash(self.module, self._source)
        return hashlib.sha256(f"{self._weights_hash} {self.length}".encode()).hexdigest()

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return self.redraw(prompts, [(None,) * self.length] * len(prompts), k, rng)

    def redraw(
        self,
        prompts: Sequence[str],
        erased: Sequence[Gaps],
        k: int,
        rng: np.random.Generator,
    ) -> list[list[Response]]:
        """K independent fillings of each of M responses with gaps, in random order each.

        Raises:
            ValueError: k below 1, a sequence of another length, a token that is never drawn, or a
                prompt that leaves no room.
        """
        refuse_draw(k)
        for gaps in erased:
            self._check(gaps)
        contexts = {prompt: self._context(prompt) for prompt in prompts}
        wanted = [
            (contexts[prompt], list(gaps))
            for prompt, gaps in zip(prompts, erased, strict=True)
            for _ in range(k)
        ]
        drawn: list[Response] = []
        for first in range(0, len(wanted), self._rows):
            drawn += self._fill(wanted[first : first + self._rows], rng)
        return [drawn[i : i + k] for i in range(0, len(drawn), k)]

    def log_law(self, prompt: str, erased: Gaps) -> Float[np.ndarray, "L V"]:
        """log π(token | what is left) of each erased site, if it were the next drawn. Nats.

        At the other sites stands what the model would say of a token it can see.
        """
        self._check(erased)
        every = np.arange(self.length)[None]
        return self._log_laws([self._context(prompt)], [list(erased)], every)[0]

    def _fill(
        self, wanted: list[tuple["_Context", list[int | None]]], rng: np.random.Generator
    ) -> list[Response]:
        """One site of every row at a time."""
        contexts = [context for context, _ in wanted]
        rows = [list(gaps) for _, gaps in wanted]
        orders = [rng.permutation([i for i, t in enumerate(row) if t is None]) for row in rows]
        nats = np.zeros(len(rows))
        for turn in range(max(len(order) for order in orders)):
            open_ = [r for r, order in enumerate(orders) if turn < len(order)]
            sites = np.array([[orders[r][turn]] for r in open_])
            laws = self._log_laws([contexts[r] for r in open_], [rows[r] for r in open_], sites)
            for r, site, law in zip(open_, sites[:, 0], laws[:, 0], strict=True):
                steps = np.exp(law).cumsum()
                token = int(min(steps.searchsorted(rng.random() * steps[-1], "right"), self._last))
                rows[r][site], nats[r] = token, nats[r] + law[token]
        return [self._response(row, float(n)) for row, n in zip(rows, nats, strict=True)]

    @torch.no_grad()
    def _log_laws(
        self,
        contexts: "list[_Context]",
        rows: list[list[int | None]],
        wanted: Int[np.ndarray, "R S"],
    ) -> Float[np.ndarray, "R S V"]:
        """Laws at the wanted sites: float64, normalised, special tokens left out."""
        longest = max(len(context.ids) for context in contexts)
        pad = self.tokenizer.pad_token_id or 0
        ids = np.full((len(rows), longest), pad)
        kinds, mask = np.zeros_like(ids), np.zeros_like(ids)
        for r, (context, row) in enumerate(zip(contexts, rows, strict=True)):
            size = len(context.ids)
            ids[r, :size], kinds[r, :size], mask[r, :size] = context.ids, context.kinds, 1
            ids[r, context.sites] = [self.tokenizer.mask_token_id if t is None else t for t in row]
        device = next(self.module.parameters()).device
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            inputs["token_type_ids"] = kinds
        tensors = {key: torch.from_numpy(value).to(device) for key, value in inputs.items()}
        sites = np.take_along_axis(np.stack([context.sites for context in contexts]), wanted, 1)
        logits = self._logits_at(torch.from_numpy(sites).to(device), tensors).double()
        logits /= self.sampling.temperature
        logits[..., torch.from_numpy(~self._allowed).to(device)] = -torch.inf
        return torch.log_softmax(logits, -1).cpu().numpy()

    def _logits_at(
        self, places: Int[torch.Tensor, "R S"], tensors: dict[str, torch.Tensor]
    ) -> Float[torch.Tensor, "R S V"]:
        """Logits at these places; where the model's head lets it, made at no others.

        Of a long prompt and a large vocabulary the other places are nearly all of the memory.
        """
        rows, narrowed = torch.arange(len(places), device=places.device)[:, None], []

        def narrow(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            [states] = given
            if states.shape[:2] == tensors["input_ids"].shape:
                narrowed.append(True)
                states = states[rows, places]
            return (states,)

        module: Any = self.module
        head = module.get_output_embeddings()
        hook = None if head is None else head.register_forward_pre_hook(narrow)
        try:
            logits = module(**tensors).logits
        finally:
            if hook is not None:
                hook.remove()
        return logits if narrowed else logits[rows, places]

    @property
    def _last(self) -> int:
        """The last token that can be drawn: a height may round up to the whole."""
        return int(np.flatnonzero(self._allowed)[-1])

    def _response(self, row: list[int | None], log_prob: float) -> Response:
        ids = tuple(t for t in row if t is not None)
        return Response(self.tokenizer.decode(list(ids)), ids, log_prob, "length")

    def _context(self, prompt: str) -> "_Context":
        masks = self.tokenizer.mask_token * self.length
        read = self.tokenizer(*((prompt, masks) if prompt else (masks,)))
        ids = np.array(read["input_ids"])
        sites = np.flatnonzero(ids == self.tokenizer.mask_token_id)
        if len(sites) != self.length:
            raise ValueError(
                f"prompt {prompt[:60]!r} holds the mask token, which stands for a site of the "
                "response; leave it out of prompts."
            )
        if self._window is not None and len(ids) > self._window:
            raise ValueError(
                f"prompt {prompt[:60]!r} and a response of {self.length} tokens are {len(ids)}, "
                f"more than the context window of {self._window}. Shorten one of them."
            )
        kinds = read.get("token_type_ids", [0] * len(ids))
        return _Context(ids, np.array(kinds), sites)

    def _check(self, gaps: Gaps) -> None:
        known = all(t is None or (0 <= t < len(self._allowed) and self._allowed[t]) for t in gaps)
        if len(gaps) != self.length or not known:
            raise ValueError(
                f"a sequence {tuple(gaps)} came; {self.length} tokens are needed, None at each "
                "gap, and no special ones."
            )


class _Context:
    """What is read around a response: token ids, segment ids, the places of its sites."""

    def __init__(self, ids: np.ndarray, kinds: np.ndarray, sites: np.ndarray) -> None:
        self.ids, self.kinds, self.sites = ids, kinds, sites
