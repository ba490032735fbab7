"""Who answers and under which sampling law, as the options say."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infalign.protocols import Sampling

__all__ = ["SETTINGS", "Given", "given_from"]

SETTINGS = ("n", "beta", "steps", "block")
"""Options that are settings of the procedure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Who answers and under which sampling law, as the options say; checked when made.

    Raises:
        ValueError: options that exclude each other, or one that is missing.
    """

    model: str | None = None
    experiment: Path | None = None
    policy: str = "infalign"
    server: tuple[str, ...] = ()
    server_kind: str = "openai"
    api: str | None = None
    tokenizer: str | None = None
    api_key_env: str | None = None
    temperature: float | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    """A backslash and n stand for the end of a line, which shells make hard to type."""

    def __post_init__(self) -> None:
        if self.experiment is not None:
            own = ("model", "server", "tokenizer", "temperature", "max_new_tokens", "stop")
            twice = [name for name in own if getattr(self, name) not in (None, ())]
            if twice:
                option = "--" + twice[0].replace("_", "-")
                raise ValueError(
                    f"{option} came beside --experiment, whose policy has its own; leave one out."
                )
        elif not self.model:
            raise ValueError(
                "nothing says who answers: give --model (a folder, a hub id or `embedded`), "
                "--server with --model, or --experiment."
            )
        if self.api not in (None, "completions", "chat"):
            raise ValueError(f"--api is {self.api!r}; completions and chat are known.")
        if self.tokenizer and not self.server:
            raise ValueError("--tokenizer is that of a server's model; give --server too.")
        _ = self.sampling  # refused now, not when a model has been loaded

    @property
    def sampling(self) -> Sampling:
        """The sampling law of a policy that is no experiment's."""
        temperature = 1.0 if self.temperature is None else self.temperature
        longest = 128 if self.max_new_tokens is None else self.max_new_tokens
        stop = tuple(text.replace("\\n", "\n").replace("\\t", "\t") for text in self.stop)
        return Sampling(temperature, longest, stop)


def given_from(said: Mapping[str, Any]) -> Given:
    """From a verb's options; those that are None were not given."""
    fields = {field.name for field in dataclasses.fields(Given)}
    listed: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in said.items()
        if key in fields and value is not None
    }
    return Given(**listed)
