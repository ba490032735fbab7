"""The disk: full, read-only, and files that are whole or absent."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import small_store
from small_store import CHUNK, PROMPTS, Length, collected, contents, shards

from infalign.rollouts import score
from infalign.rollouts.shards import write_atomically


def test_a_full_disk_keeps_finished_shards_and_says_so(tmp_path, uninterrupted):
    # The operating system's own limit on file sizes stands in for a full disk: writing fails.
    script = (
        "import resource, runpy, sys; sys.argv = [sys.argv[1], *sys.argv[2:]]\n"
        "from infalign.rollouts.store import RolloutStore\n"
        "test = runpy.run_path(sys.argv[0])\n"
        "store = test['collected'](sys.argv[1], prompts=test['PROMPTS'][:6])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "test['collected'](sys.argv[1])"
    )
    path = tmp_path / "s"
    done = subprocess.run(
        [sys.executable, "-c", script, small_store.__file__, str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"[Errno {errno.EFBIG}] cannot write" in last
    assert "What was finished before is kept. Make room" in last
    assert len(shards(path)) == 2
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    assert contents(path) == uninterrupted


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_a_read_only_folder_is_explained():
    # Under /tmp itself, where a user other than root, whom modes do not bind, may look.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        collected(path, prompts=PROMPTS[:3])
        script = (
            "import os, runpy, sys; test = runpy.run_path(sys.argv[1])\n"
            "import pyarrow.compute  # read while that is still allowed\n"
            "if os.geteuid() == 0:\n"
            "    os.setegid(65534); os.seteuid(65534)\n"
            "assert len(test['RolloutStore'].existing(sys.argv[2]).prompt_ids) == 3\n"
            "test['collected'](sys.argv[2])"
        )
        for name in (path / "rollouts", path / "partial", path, Path(folder)):
            name.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", script, small_store.__file__, str(path)],
            capture_output=True,
            text=True,
        )
        for name in (Path(folder), path):
            name.chmod(0o755)
    last = done.stderr.strip().splitlines()[-1]
    assert "PermissionError" in last
    assert "make the folder writable" in last


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file"
    write_atomically(target, b"old", tmp_path / "partial")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="cannot write folder"):
        write_atomically(tmp_path / "folder", b"new", tmp_path / "partial")
    os.link(target, tmp_path / "whoever has the old file open")
    write_atomically(target, b"new", tmp_path / "partial")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "whoever has the old file open").read_bytes() == b"old"
    assert list((tmp_path / "partial").iterdir()) == []
