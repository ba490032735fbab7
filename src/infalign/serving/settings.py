"""What a server is told when it starts: the upstream, the procedure, how much at once."""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping
from typing import Any, final

from infalign.decoding import TextProcedure, on_text
from infalign.decoding.names import text_procedure_from_name, text_procedure_settings
from infalign.policies.openai_server import DIALECTS, Connection, Dialect, ServerKind
from infalign.quantile.procedures import Procedure

__all__ = ["Limits", "Recipe", "Serving"]


@final
@dataclasses.dataclass(frozen=True)
class Recipe:
    """A procedure by name, so that a request may ask for another n.

    Example:
        >>> Recipe("best-of-8").made().name
        'best-of-8'
        >>> Recipe("soft_best_of_n", {"n": 8, "temperature": 0.1}).made(n=4).most
        4
    """

    name: str
    """As :func:`.text_procedure_from_name` reads it; settings in brackets stay as they are."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Its fields."""

    def __post_init__(self) -> None:
        named = re.fullmatch(r"\s*(\w[\w-]*?)[-_](\d+)\s*", self.name)
        if named is not None and "n" in self.settings:
            raise ValueError(
                f"n is {self.settings['n']} beside {self.name}, which has its own in its name; "
                "give one of them."
            )
        if named is not None:
            stem = named[1].lower().replace("-", "_")
            object.__setattr__(self, "name", f"{stem}_n")
            object.__setattr__(self, "settings", {"n": int(named[2]), **self.settings})
        self.made()

    @property
    def takes_n(self) -> bool:
        """Whether n can be another from request to request."""
        name = self.name.strip().lower().replace("-", "_")
        return "(" not in name and "n" in text_procedure_settings(name)

    def made(self, n: int | None = None) -> TextProcedure:
        """The procedure, with another n where one is given."""
        further = {} if n is None else {"n": n}
        return text_procedure_from_name(self.name, **{**self.settings, **further})


@final
@dataclasses.dataclass(frozen=True)
class Limits:
    """How much is taken on, and for how long.

    Raises:
        ValueError: a count below its least, or a time that is not above 0.
    """

    candidates: int = 128
    """Responses drawn for one answer at most. ≥ 1."""
    concurrency: int = 64
    """Answers being found at once. ≥ 1."""
    queue: int = 256
    """Requests that wait for one of these places; further ones are sent away with 429. ≥ 0."""
    seconds: float = 600.0
    """From a request's arrival to its answer, waiting included; then 504. > 0."""
    body_bytes: int = 4 * 2**20
    """Of a request; more is refused with 413. ≥ 1."""
    keep_alive: float = 5.0
    """Seconds until a stream shows a sign of life while its answer is being chosen. > 0."""
    reward_texts: int = 256
    """Texts scored in one call of the reward, across requests. ≥ 1."""

    def __post_init__(self) -> None:
        for name, least in (("candidates", 1), ("concurrency", 1), ("queue", 0)):
            _require_count(name, getattr(self, name), least)
        _require_count("body_bytes", self.body_bytes, 1)
        _require_count("reward_texts", self.reward_texts, 1)
        for name in ("seconds", "keep_alive"):
            value = getattr(self, name)
            if isinstance(value, bool) or not (0 < value < math.inf):
                raise ValueError(f"{name} is {value}; seconds above 0 are needed.")


@final
@dataclasses.dataclass(frozen=True)
class Serving:
    """All there is to know, save the reward.

    Raises:
        ValueError: what cannot be served, such as a procedure that draws more than the limit.
    """

    upstream: Connection
    """Addresses and key of the model's servers, timeouts, requests in flight."""
    procedure: Recipe | Procedure | TextProcedure
    """Finds the answer. Only a recipe lets requests change its n."""
    server: ServerKind = "openai"
    """What the upstream is: it is told, in its words, to sample from the whole vocabulary, where
    a request does not say otherwise. `openai` is told nothing beyond the request."""
    model: str | None = None
    """Asked of the upstream, whatever a request names; None: what the request names."""
    n_per_request: int = 8
    """Responses asked of the upstream in one request, where it draws several. ≥ 1."""
    calibrate: int = 0
    """Reference draws for each request, for quantiles; the upstream is the reference. 0 or ≥ 2."""
    key_env: str | None = None
    """Variable that holds the keys of our clients, separated by commas; None: everybody may ask."""
    limits: Limits = dataclasses.field(default_factory=Limits)
    """How much at once."""

    def __post_init__(self) -> None:
        if self.server not in DIALECTS:
            near = difflib.get_close_matches(str(self.server), DIALECTS, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"server is {self.server!r}; it must be one of {', '.join(DIALECTS)}.{hint}"
            )
        _require_count("n_per_request", self.n_per_request, 1)
        _require_count("calibrate", self.calibrate, 0)
        if self.calibrate == 1:
            raise ValueError("calibrate is 1; a quantile needs at least 2 reference draws.")
        self._check_procedure(self.made())
        self.client_keys()
        self.upstream.key()  # refused now where it is missing, not when somebody asks

    @property
    def dialect(self) -> Dialect:
        """What the upstream is told and tells."""
        return DIALECTS[self.server]

    def made(self, n: int | None = None) -> TextProcedure:
        """The procedure, with another n where a request asks for one.

        Raises:
            ValueError: it takes no n, or not this one.
        """
        if isinstance(self.procedure, Recipe):
            if n is not None and not self.procedure.takes_n:
                raise ValueError(f"{self.procedure.name} has no n that a request may change.")
            made = self.procedure.made(n)
            if n is not None:
                self._require_few(made)
            return made
        if n is not None:
            raise ValueError(f"{self.procedure.name} was fixed when the server started.")
        return on_text(self.procedure)

    def client_keys(self) -> tuple[bytes, ...]:
        """Keys of our clients, read anew each time; none where everybody may ask.

        Raises:
            ValueError: the variable is named and not set.
        """
        if self.key_env is None:
            return ()
        found = [key.strip() for key in os.environ.get(self.key_env, "").split(",")]
        keys = tuple(key.encode() for key in found if key)
        if not keys:
            raise ValueError(
                f"{self.key_env} is to hold the keys of clients and is not set in the environment. "
                "Set it to one key or several with commas between, or name no variable."
            )
        return keys

    def _check_procedure(self, procedure: TextProcedure) -> None:
        self._require_few(procedure)
        if procedure.needs_gaps:
            raise ValueError(
                f"{procedure.name} fills gaps in responses, which no OpenAI-compatible server can."
            )
        if procedure.needs_beginnings and self.server != "vllm":
            raise ValueError(
                f"{procedure.name} goes on from the beginning of a response, for which the "
                f"upstream must speak token ids; a server of kind {self.server!r} does not. Put "
                "it before vLLM (--server-kind vllm), or use one that draws whole responses."
            )
        if procedure.needs_calibration and not self.calibrate:
            raise ValueError(
                f"{procedure.name} looks at quantiles, not only at ranks; say how many reference "
                "draws each request is compared with (--calibrate 16, say)."
            )

    def _require_few(self, procedure: TextProcedure) -> None:
        if procedure.most > self.limits.candidates:
            raise ValueError(
                f"{procedure.name} draws up to {procedure.most} responses for an answer and the "
                f"limit is {self.limits.candidates}; raise the limit (--max-n), or let it draw "
                "fewer."
            )


def _require_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; a whole number of at least {least} is needed.")
