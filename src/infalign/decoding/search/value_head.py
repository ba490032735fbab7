"""A value head: what a beginning is worth, read off a frozen language model's hidden state.

A linear map or a small multilayer perceptron over the state at the last token, fitted to what
stored rollouts that went through such states were rewarded with in the end. It belongs to the
policy whose rollouts these were, at their sampling law, and to no other.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from infalign.policies.causal_lm import CausalLM

__all__ = ["HeadValue", "ValueHead"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ValueHead:
    """value = shift + slope·h(state): numbers alone, no torch.

    Made by :func:`.fit_value_head`; :meth:`on` puts it on its language model.
    """

    layers: tuple[tuple[Float[np.ndarray, "O I"], Float[np.ndarray, "O"]], ...]
    """Weights and biases; between layers, negative numbers become 0. The last one's O is 1."""
    center: Float[np.ndarray, "D"]
    """Mean state, subtracted first."""
    scale: Float[np.ndarray, "D"]
    """Spread of the states, divided by then."""
    shift: float
    """Value where the last layer says 0."""
    slope: float
    """Value per unit of the last layer."""
    identity: dict[str, Any]
    """Whose rollouts it was fitted to: fingerprint and sampling law."""
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How it was fitted and how well it does."""

    def __call__(self, states: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M"]:
        """Values of M states."""
        signal = (states.astype(np.float64) - self.center) / self.scale
        for weight, bias in self.layers[:-1]:
            signal = np.maximum(signal @ weight.T + bias, 0.0)
        weight, bias = self.layers[-1]
        return self.shift + self.slope * (signal @ weight.T + bias)[:, 0]

    @property
    def fingerprint(self) -> str:
        """Hash of the numbers and of whose rollouts they were fitted to."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode())
        for name, array in sorted(self._arrays().items()):
            digest.update(name.encode() + array.tobytes())
        return digest.hexdigest()

    def on(self, lm: "CausalLM") -> "HeadValue":
        """The head on its language model: a :class:`.Value`.

        Raises:
            ValueError: it was fitted to rollouts of another model or sampling law.
        """
        return HeadValue(lm, self)

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file."""
        from safetensors.numpy import save_file

        told = {"identity": json.dumps(self.identity), "record": json.dumps(self.record)}
        save_file(self._arrays(), Path(path), metadata={"infalign": "value head 1", **told})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            OSError: no such file.
            ValueError: it holds no value head.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(Path(path), framework="numpy") as file:
                told = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file ({error}).") from error
        if told.get("infalign") != "value head 1":
            raise ValueError(
                f"{path} holds {sorted(arrays)[:4]} and no value head of a known version; give a "
                "file that ValueHead.save wrote."
            )
        depth = sum(name.startswith("weight") for name in arrays)
        shift, slope = arrays["line"].tolist()
        return cls(
            tuple((arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(depth)),
            arrays["center"],
            arrays["scale"],
            shift,
            slope,
            json.loads(told["identity"]),
            json.loads(told["record"]),
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"center": self.center, "scale": self.scale}
        arrays["line"] = np.array([self.shift, self.slope])
        for i, (weight, bias) in enumerate(self.layers):
            arrays |= {f"weight{i}": np.ascontiguousarray(weight), f"bias{i}": bias}
        return arrays


@final
@dataclasses.dataclass(frozen=True, eq=False)
class HeadValue:
    """A value head on its language model; made by :meth:`ValueHead.on`.

    It reads the beginnings anew at each call, shared parts once: steering every token costs a
    reading of prompt and beginning per token, searching over blocks one per block. That it belongs
    to the model is checked when it is made; a model trained on since has other states.
    """

    lm: "CausalLM"
    """Whose states are read, with the weights as they are."""
    head: ValueHead
    """What is read off them."""

    def __post_init__(self) -> None:
        found = identity_of(self.lm)
        different = sorted(key for key in found if found[key] != self.head.identity.get(key))
        if different:
            raise ValueError(
                f"the value head was fitted to rollouts of another law than {self.lm.name}'s: "
                f"{', '.join(f'{k} {self.head.identity.get(k)!r}' for k in different)} there, "
                f"{', '.join(f'{k} {found[k]!r}' for k in different)} here. Fit a head to this "
                "policy's rollouts."
            )

    @property
    def name(self) -> str:
        """What it was fitted to."""
        return str(self.head.record.get("name", "value head"))

    @property
    def fingerprint(self) -> str:
        """The head's, which says of which model it is."""
        return self.head.fingerprint

    @property
    def vocabulary(self) -> str:
        """The model's."""
        return self.lm.vocabulary

    def __call__(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "M"]:
        """Values of M beginnings, ended or not."""
        from infalign.decoding.search.states import last_states

        if not len(beginnings):
            return np.zeros(0)
        return self.head(last_states(self.lm, prompts, beginnings))


def identity_of(lm: "CausalLM") -> dict[str, Any]:
    """What a value depends on: the weights and the sampling law; JSON has words for it."""
    sampling = dataclasses.asdict(lm.sampling)
    return {"fingerprint": lm.fingerprint, **sampling, "stop": list(lm.sampling.stop)}
