"""Reading and writing the experiment file, with messages that name the key and the remedy."""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from infalign.config.experiment import Experiment

__all__ = ["dump_experiment", "load_experiment", "read_experiment", "validate_experiment"]


def load_experiment(path: str | Path) -> Experiment:
    """The experiment a YAML file describes; what it leaves out has its default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no UTF-8 YAML mapping, or any key or value is not right; the message
            lists all of them.
    """
    return validate_experiment(read_experiment(path), str(path))


def read_experiment(path: str | Path) -> Any:
    """What a YAML file holds, before any key or value is looked at.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, not UTF-8 or not YAML.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no experiment file at {path}.")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start + 1} is not UTF-8.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if data is None:
        raise ValueError(f"{path} is empty; `name: my experiment` is the least that is needed.")
    return data


def validate_experiment(data: Any, source: str = "experiment") -> Experiment:
    """The experiment that nested mappings describe.

    Args:
        data: as the YAML file has it.
        source: begins each line of an error message.

    Raises:
        ValueError: naming every key or value that is not right, and what would be.

    Example:
        >>> validate_experiment({"transform": "log", "rollouts": {"k": 64}}).rollouts.k
        64
        >>> validate_experiment({"training": {"kind": "online", "bta": 0.1, "beta": 1}})
        Traceback (most recent call last):
            ...
        ValueError: experiment: training.bta: unknown; did you mean 'beta'?
    """
    try:
        experiment = _adapter().validate_python(data)
    except ValidationError as error:
        lines = [f"{source}: {_explained(detail)}" for detail in error.errors()]
        raise ValueError("\n".join(lines)) from None
    if isinstance(data, Mapping) and experiment.prompts.path != "embedded" and "reward" not in data:
        raise ValueError(
            f"{source}: reward: missing; the default one judges film reviews and would say little "
            f"of answers to {experiment.prompts.path}. Choose one."
        )
    return experiment


def dump_experiment(experiment: Experiment) -> str:
    """The experiment as YAML, every default written out; loading it gives the same experiment."""
    data = _kind_first(_adapter().dump_python(experiment, mode="json"))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


@functools.cache
def _adapter() -> TypeAdapter[Experiment]:
    return TypeAdapter(Experiment)


def _kind_first(data: Any) -> Any:
    """Nested data in the order people write it."""
    if isinstance(data, list):
        return [_kind_first(item) for item in data]
    if not isinstance(data, dict):
        return data
    ordered = sorted(data.items(), key=lambda item: item[0] != "kind")
    return {key: _kind_first(value) for key, value in ordered}


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a key stand twice and takes the last; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no key of ours, and the parent class refuses it
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _explained(detail: Any) -> str:
    """One of pydantic's error records as "key: what is wrong; what is needed"."""
    path, sections = _located(detail["loc"])
    context, given = detail.get("ctx", {}), detail["input"]
    match detail["type"]:
        case "unexpected_keyword_argument":
            names = [field.name for field in dataclasses.fields(sections[0])]
            return f"{path}: unknown; {_suggested(str(detail['loc'][-1]), names)}"
        case "union_tag_invalid":
            kinds = context["expected_tags"].replace("'", "").split(", ")
            return f"{path}: unknown kind '{context['tag']}'; {_suggested(context['tag'], kinds)}"
        case "union_tag_not_found":
            return f"{path}: kind is missing; {_suggested('', map(str, map(_kind, sections)))}"
        case "literal_error":
            choices = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"{path}: {given!r} is not known; {_suggested(str(given), choices)}"
        case "missing":
            return f"{path}: missing"
        case "dataclass_type" | "model_attributes_type":
            return f"{path or 'the file'}: {given!r} found where keys and values are needed"
        case "tuple_type":
            return f"{path}: {given!r} found; a list is needed, even of one"
        case "value_error":
            return f"{path + ': ' if path else ''}{context['error']}."
        case _:
            return f"{path}: {given!r} found; {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _located(loc: Iterable[str | int]) -> tuple[str, list[type]]:
    """Where an error is, written as in the file, and the section (or sections) to choose from.

    Pydantic's location also names the kind chosen on the way; the file does not.
    """
    path, sections = "", [Experiment]
    for item in loc:
        chosen = [section for section in sections if _kind(section) == item]
        if isinstance(item, int):
            path += f"[{item}]"
        elif len(sections) > 1 and chosen:
            sections = chosen
        else:
            path += f".{item}" if path else item
            hints = typing.get_type_hints(sections[0]) if len(sections) == 1 else {}
            sections = _sections_in(hints.get(item)) or sections
    return path, sections


def _sections_in(hint: Any) -> list[type]:
    if dataclasses.is_dataclass(hint):
        return [hint] if isinstance(hint, type) else []
    return [section for part in typing.get_args(hint) for section in _sections_in(part)]


def _kind(section: type) -> str | None:
    return getattr(section, "kind", None)


def _suggested(given: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    close = difflib.get_close_matches(given, choices, n=1)
    return f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(choices)}"
