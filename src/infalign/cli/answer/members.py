"""The objects that the command line names: a procedure, a reward, a policy.

Nothing heavy is loaded until an object is made, so that a slip in an option is told at once.
"""

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from infalign.cli.answer.given import SETTINGS, Given
from infalign.cli.changes import experiment_from
from infalign.protocols import Reward, Sampler, Sampling

if TYPE_CHECKING:
    from infalign.decoding import TextProcedure

__all__ = ["policy_of", "procedure_from", "refuse_without", "reward_from", "reward_of"]

_FUNCTION = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_EMBEDDED = "embedded"


def reward_of(name: str, label: str | None = None) -> Reward:
    """The reward that a word names.

    Args:
        name: `module:function`, `embedded`, `embedded:gold`, `embedded:vader`, or a classifier's
            folder or hub id.
        label: which label of a classifier is the reward.

    Raises:
        ValueError: it names none, or what it names cannot be loaded.
    """
    from infalign.rewards.function import FunctionReward
    from infalign.rewards.names import reward_from_name

    kind, _, which = name.partition(":")
    if label is not None and (kind == _EMBEDDED or _FUNCTION.fullmatch(name)):
        raise ValueError(f"--label chooses among a classifier's; {name} has none. Leave it out.")
    if kind == _EMBEDDED:
        return reward_from_name(_EMBEDDED, name=which or "training")
    if _FUNCTION.fullmatch(name) and not Path(name).exists():
        _see_current_folder()
        return FunctionReward(name, must_be_finite=False)  # procedures decide what NaN means
    if "/" not in name and not Path(name).is_dir():
        raise ValueError(
            f"--reward {name}: there is no such folder. Give `module:function`, the folder or hub "
            "id (owner/name) of a sequence-classification model, or `embedded`."
        )
    number = int(label) if label is not None and label.isdigit() else label
    return reward_from_name("classifier", model=name, label=number)


def procedure_from(given: Given, said: Mapping[str, Any]) -> "TextProcedure":
    """The procedure the options name, or the experiment's.

    Raises:
        ValueError: none, or an unknown name or setting, with the nearest right one.
    """
    from infalign.decoding import text_procedure_from_name

    changed = {name: said[name] for name in SETTINGS if said[name] is not None}
    if said["procedure"] is not None:
        return text_procedure_from_name(said["procedure"], **changed)
    if given.experiment is None:
        raise ValueError(
            "nothing says how to answer: give --procedure, such as best_of_n with --n 8, or "
            "majority_vote; identity is plain sampling."
        )
    section = experiment_from(given.experiment).procedure
    own = {name: value for name, value in vars(section).items() if name != "kind"}
    return text_procedure_from_name(section.kind, **(own | changed))


def refuse_without(procedure: "TextProcedure", said: Mapping[str, Any]) -> None:
    """Refuse what the procedure cannot do without and no option brings.

    Raises:
        ValueError: no reward, or nothing to calibrate by.
    """
    if procedure.needs_calibration and not said["calibrate"]:
        raise ValueError(
            f"{procedure.name} looks at quantiles under the reference, so the reference must be "
            "drawn from: give --calibrate K, 64 say, responses to each prompt."
        )
    if procedure.needs_reward and said["reward"] is None and said["experiment"] is None:
        raise ValueError(
            f"{procedure.name} needs a reward to choose by; give --reward (`module:function`, a "
            "classifier, or `embedded`), or a procedure that needs none, such as majority_vote."
        )


def reward_from(given: Given, said: Mapping[str, Any]) -> tuple[Reward | None, Any]:
    """The reward, and how settings name it: a function by its source, which may change."""
    if said["reward"] is not None:
        reward: Any = reward_of(said["reward"], said["label"])
        name = [said["reward"], said["label"]]
    elif given.experiment is not None:
        from infalign.pipeline import build

        section = experiment_from(given.experiment).reward
        reward, name = build.reward_of(section), {**vars(section)}
    else:
        return None, None
    source = getattr(reward, "source", None)
    return reward, [name, None if source is None else hashlib.sha256(source.encode()).hexdigest()]


Render = Callable[[list[Any]], str]
"""Chat messages → a prompt's text, ready for the assistant's turn."""


def policy_of(given: Given, is_chat: bool, stack: contextlib.ExitStack) -> tuple[Sampler, Render]:
    """Who answers, and how it reads chat messages.

    Args:
        given: the options.
        is_chat: whether it will be asked messages: servers have another address for them.
        stack: what has to stay open as long as the policy is used.

    Raises:
        ValueError: nothing loadable, a policy that is not trained, a server that cannot be used.
    """
    if given.experiment is not None:
        return _trained(given, stack)
    assert given.model is not None  # as checked
    if given.server:
        return _served(given, is_chat)
    from infalign.policies import CausalLM

    source = given.model
    named: dict[str, Any] = {}
    if source == _EMBEDDED:
        from infalign.assets import asset_folder

        source, named = (
            str(asset_folder("smollm2-135m-instruct")),
            {"name": "SmolLM2-135M-Instruct"},
        )
    policy = CausalLM.from_pretrained(source, given.sampling, **named)
    return policy, policy.render_chat


def _trained(given: Given, stack: contextlib.ExitStack) -> tuple[Sampler, Render]:
    """The reference or a trained policy of an experiment; nothing is trained here."""
    from infalign.cli.opening import pipeline_module
    from infalign.pipeline.stages import load_policy

    assert given.experiment is not None  # as checked
    study = pipeline_module().make_study(experiment_from(given.experiment))
    if given.policy == "reference":
        return stack.enter_context(study.policy.reference()), study.policy.render_chat
    if given.policy not in study.policies:
        raise ValueError(
            f"no policy is named {given.policy!r} in {given.experiment}; there are "
            f"{', '.join(['reference', *study.policies])}."
        )
    load_policy(study, given.policy)
    return study.policy, study.policy.render_chat


def _served(given: Given, is_chat: bool) -> tuple[Sampler, Render]:
    """A model behind a server."""
    from infalign.policies.openai_server import DIALECTS, Connection, OpenAIServer

    if given.server_kind not in DIALECTS:
        raise ValueError(
            f"--server-kind is {given.server_kind!r}; {', '.join(DIALECTS)} are known."
        )
    assert given.model is not None
    codec = None if given.tokenizer is None else _codec(given.tokenizer, given.sampling)
    api: Any = given.api or ("chat" if is_chat and codec is None else "completions")
    kind: Any = given.server_kind
    policy = OpenAIServer(
        given.model,
        given.sampling,
        Connection(given.server, api_key_env=given.api_key_env),
        server=kind,
        api=api,
        codec=codec,
    )
    if codec is None:
        return policy, policy.render_chat
    written: Any = codec.tokenizer.apply_chat_template
    return policy, lambda turns: written(turns, tokenize=False, add_generation_prompt=True)


def _codec(source: str, sampling: Sampling) -> Any:
    """The conventions of a tokenizer, with the ends that the model's settings name."""
    from transformers import AutoTokenizer, GenerationConfig

    from infalign.policies.tokens import TextCodec, end_ids

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"no tokenizer could be loaded from {source!r}: {error}") from error
    settings: Any = SimpleNamespace(eos_token_id=None)
    with contextlib.suppress(OSError):
        settings = GenerationConfig.from_pretrained(source)
    ends = end_ids(SimpleNamespace(generation_config=settings), tokenizer)
    return TextCodec(tokenizer, sampling.stop, ends)


def _see_current_folder() -> None:
    """A user's module lies where they start the command; a console script does not look there."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
