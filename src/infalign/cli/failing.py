"""How a verb ends when it cannot go on: a message and an exit code; a traceback for defects."""

import contextlib
import errno
import functools
import linecache
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

__all__ = ["DEFECT", "STOPPED", "USER_ERROR", "explained", "is_debug", "kept", "set_debug"]

P = ParamSpec("P")
R = TypeVar("R")

USER_ERROR, DEFECT, STOPPED = 2, 1, 130
"""Exit codes: what the user can mend; what we must; Ctrl-C, as shells have it."""

_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_EXTRAS = {
    **dict.fromkeys(("accelerate", "datasets", "gguf", "peft", "safetensors"), "lm"),
    **dict.fromkeys(("tokenizers", "torch", "transformers", "vaderSentiment"), "lm"),
    **dict.fromkeys(("jinja2", "matplotlib"), "report"),
    "ray": "ray",
    "trl": "trl",
    "openai": "server",
    **dict.fromkeys(("prometheus_client", "starlette", "uvicorn"), "serve"),
    "vllm": "vllm",
}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOCKED = {errno.EACCES, errno.EPERM, errno.EROFS}
_state = {"debug": False}


def set_debug(is_on: bool) -> None:
    """Show the traceback of user errors too."""
    _state["debug"] = is_on


def is_debug() -> bool:
    """Whether tracebacks are wanted."""
    return _state["debug"]


def explained(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb, ending in a message and an exit code whatever it raises."""

    @functools.wraps(verb)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:  # the reader of our output has seen enough: `infalign plan | head`
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # flushed at exit
            raise typer.Exit(0) from None
        except KeyboardInterrupt as stop:
            raise typer.Exit(_stopped(stop)) from None
        except Exception as error:
            raise typer.Exit(_failed(error)) from None

    return wrapped


@contextlib.contextmanager
def kept(folder: str | Path, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Say of what stops the block that finished work is kept, and how to go on from it.

    Args:
        folder: where it is kept.
        also: errors that come after work has begun, beside the usual ones.
    """
    try:
        yield
    except (KeyboardInterrupt, OSError, RuntimeError, *also) as stop:
        if Path(folder).is_dir():
            stop.add_note(
                f"What was finished is kept in {folder}. The same command goes on from there:\n"
                f"  {_command()}"
            )
        raise


def _stopped(stop: KeyboardInterrupt) -> int:
    _write("stopped", "yellow", "by Ctrl-C.", getattr(stop, "__notes__", ()))
    if _state["debug"]:
        traceback.print_exception(stop)
    return STOPPED


def _failed(error: Exception) -> int:
    notes = getattr(error, "__notes__", ())
    if not _is_for_the_user(error):
        traceback.print_exception(error)
        why = "This is a defect of infalign or of a library under it; please report the above."
        _write("error", "red", f"{type(error).__name__}: {error}", [why])
        return DEFECT
    if _state["debug"]:
        traceback.print_exception(error)
    elif not _is_deliberate(error) and not isinstance(error, OSError | ImportError):
        notes = [*notes, "--debug shows where this was raised."]
    _write("error", "red", _message(error), notes)
    return USER_ERROR


def _is_for_the_user(error: Exception) -> bool:
    if isinstance(error, ImportError):
        return not (error.name or "").startswith("infalign") or _is_deliberate(error)
    is_memory = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
    return isinstance(error, ValueError | OSError) or is_memory or _is_deliberate(error)


def _is_deliberate(error: BaseException) -> bool:
    """Whether a `raise` of ours made it, with a message for the user; else something broke."""
    if type(error).__module__.startswith("infalign."):
        return True
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    if not frames or not frames[0].filename.startswith(_PACKAGE):
        return False
    line = linecache.getline(frames[0].filename, frames[0].lineno or 0)
    return line.lstrip().startswith("raise ")


def _message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, ImportError):
        return _import_message(error, text)
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return (
            f"out of memory: {text.splitlines()[0]}\nLower training.prompts_per_pass, "
            "rollouts.chunk or a reward's batch_size, for example with --set."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return _system_message(error)
    return text


def _import_message(error: ImportError, text: str) -> str:
    if "pip install" in text or not error.name:
        return text
    package = error.name.partition(".")[0]
    extra = _EXTRAS.get(package)
    wanted = f"'infalign[{extra}]'" if extra else package
    return f"the package {package!r} is not installed; this needs it: pip install {wanted}"


def _system_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if _is_deliberate(error):
        return error.strerror or str(error)
    if error.errno in _FULL:
        return f"{where}{error.strerror}. Free some, or choose another folder with --output."
    if error.errno in _LOCKED:
        return f"{where}{error.strerror}. Choose a folder you may write to, with --output."
    return f"{where}{error.strerror}." if error.strerror else str(error)


def _write(word: str, colour: str, message: str, notes: Iterable[str]) -> None:
    console = Console(stderr=True, highlight=False)
    text = Text.assemble((f"{word}: ", f"bold {colour}"), message)
    console.print(text, soft_wrap=not console.is_terminal)
    for note in notes:  # which hold commands to copy, so no line is broken
        console.print(Text(note), soft_wrap=True)


def _command() -> str:
    """The command as it was typed, as far as that is known."""
    program, *arguments = sys.argv
    if Path(program).name == "__main__.py":
        return shlex.join([Path(sys.executable).name, "-m", "infalign", *arguments])
    name = Path(program).name
    found = shutil.which(name)
    is_found = found is not None and Path(found).resolve() == Path(program).resolve()
    return shlex.join([name if is_found else program, *arguments])
