"""Released verl and OpenRLHF, run without what they need.

Their loaders, reward managers and arithmetic are the released code, read from the unpacked wheels.
What they import from others is replaced by stand-ins, and the `__init__` of packages that would
load half of them is left out. Nothing of it is left in `sys.modules` afterwards.
"""

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import pytest

RELEASED = Path(os.environ.get("INFALIGN_RELEASED") or Path(sys.prefix) / "released")
STANDINS = {
    *("ray", "omegaconf", "tensordict", "torchdata", "vllm", "deepspeed", "aiohttp"),
    *("verl.workers", "verl.single_controller", "verl.checkpoint_engine"),
    *("verl.utils.debug", "verl.utils.tracking"),
    *("openrlhf.trainer.ray", "openrlhf.utils.utils"),
}
"""Modules, with all below them, that nothing tested here calls."""
BARE = {
    "verl": {"DataProto": object},
    "verl.utils": {"as_torch_index": None, "group_mean_std": None},
    **{f"verl.{name}": {} for name in ("trainer", "trainer.ppo", "utils.dataset", "experimental")},
    "verl.experimental.reward_loop": {},
    "openrlhf": {},
    **{f"openrlhf.{name}": {} for name in ("utils", "models", "trainer", "trainer.ppo_utils")},
}
"""Packages whose `__init__` is left out, and the names that others want of it."""


def needed(version_of=None):
    """Skip where the released packages are not unpacked; fail where they must be."""
    if not (RELEASED / "verl").is_dir() or not (RELEASED / "openrlhf").is_dir():
        why = f"released verl and OpenRLHF are not in {RELEASED}; `make install` puts them there"
        if os.environ.get("INFALIGN_NEEDS_RELEASED"):
            pytest.fail(why)
        pytest.skip(why)
    if version_of is not None:
        found = next(RELEASED.glob(f"{version_of}-*.dist-info")).name
        return found.removeprefix(f"{version_of}-").removesuffix(".dist-info")
    return None


class Standin(types.ModuleType):
    """Has every name: a class for one in CamelCase, a mock for another."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {}) if name[0].isupper() else mock.MagicMock(name=name)
        setattr(self, name, made)
        return made


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if any(name == root or name.startswith(f"{root}.") for root in STANDINS):
            return importlib.machinery.ModuleSpec(name, _Loader(), is_package=True)
        if name in BARE:
            return importlib.machinery.ModuleSpec(name, _Loader(), is_package=True)
        return None


class _Loader:
    @staticmethod
    def create_module(spec):
        if spec.name not in BARE:
            return Standin(spec.name)
        module = types.ModuleType(spec.name)
        vars(module).update(BARE[spec.name])
        return module

    @staticmethod
    def exec_module(module):
        if module.__name__ in BARE:
            module.__path__ = [str(RELEASED / module.__name__.replace(".", "/"))]


@contextlib.contextmanager
def released():
    """Within it, `verl.…` and `openrlhf.…` are the released modules."""
    needed()
    import torch  # noqa: F401 - stays loaded afterwards, as does what else is not a stand-in
    import transformers  # noqa: F401

    roots = {name.split(".")[0] for name in (*STANDINS, *BARE)}
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _root(name) in roots}
    sys.meta_path.insert(0, _Finder)
    try:
        # Marking functions to be compiled loads the compiler, which takes longer than all tests.
        with mock.patch("torch.compile", lambda function=None, **options: function):
            yield importlib.import_module
    finally:
        sys.meta_path.remove(_Finder)
        for name in [name for name in sys.modules if _root(name) in roots]:
            del sys.modules[name]
        sys.modules.update(ours)


def _root(name):
    return name.split(".")[0]


@functools.cache
def verl_configuration():
    """Every key of the released trainer's configuration, dotted, with its default."""
    import yaml

    needed()
    file = RELEASED / "verl/trainer/config/_generated_ppo_trainer.yaml"
    return dict(
        _flat(
            yaml.load(
                file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            ),
            "",
        )
    )


def _flat(tree, prefix):
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


class Configuration(dict):
    """Keys as attributes, missing ones None: as much of OmegaConf as the reward's loader uses."""

    def __getattr__(self, name):
        return self.get(name)

    @classmethod
    def of(cls, dotted):
        made = cls()
        for key, value in dotted.items():
            *parents, last = key.split(".")
            place = made
            for parent in parents:
                place = place.setdefault(parent, cls())
            if not isinstance(value, dict):
                place[last] = value
        return made


def openrlhf_parser():
    """The released command line's own argument parser."""
    needed()
    source = (RELEASED / "openrlhf/cli/train_ppo_ray.py").read_text(encoding="utf-8")
    main = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    end = next(i for i, node in enumerate(main.body) if "parse_args" in ast.unparse(node))
    names = {"argparse": argparse, "datetime": importlib.import_module("datetime").datetime}
    exec(compile(ast.Module(main.body[:end], []), "train_ppo_ray.py", "exec"), names)
    return names["parser"]


def arguments(script):
    """What an exported script passes on: it is run, with a `python3` that repeats its words."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "python3"
        said.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
        said.chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        run = subprocess.run(
            ["bash", script], capture_output=True, check=True, env={**os.environ, "PATH": path}
        )
    words = run.stdout.decode().split("\0")[:-1]
    assert words[0] == "-m"
    assert (RELEASED / words[1].replace(".", "/")).with_suffix(".py").is_file()
    return words[2:]


@functools.cache
def llama2():
    """A tokenizer as Llama 2 and Mistral have it: spaces are `▁`, and a text does not begin with
    the one it begins with; a token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abYes.Qi?"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.post_processor = processors.TemplateProcessing("<s> $0", special_tokens=[("<s>", 1)])
    space = decoders.Replace("▁", " ")
    made.decoder = decoders.Sequence(
        [space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
