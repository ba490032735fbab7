"""Writers that are killed: forked from one warm process, so that fifty take seconds.

python nursery.py FOLDER SEED COUNT   prints, for each kill, what it was and what resuming left
"""

import json
import os
import random
import signal
import sys
import warnings
from pathlib import Path

from small_store import CHUNK, PROMPTS, FakeSampler, K, Length, contents, shards

from infalign.rollouts import RolloutStore, collect, score
from infalign.rollouts import contents as remembered

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove"}


def work(path, seed=7):
    """Everything: open, draw some, draw more, score."""
    store = RolloutStore.open(path, FakeSampler(), seed)
    collect(FakeSampler(), PROMPTS[:5], K, store, chunk=CHUNK)
    collect(FakeSampler(), PROMPTS, K, store, chunk=CHUNK)
    score(store, Length(), PROMPTS, chunk=CHUNK)


class Counter:
    """Calls `act` before the n-th time something happens to a file of the store."""

    def __init__(self, path, at, act):
        self.path, self.at, self.act, self.seen = str(path), at, act, 0
        sys.addaudithook(self.hear)
        self.fsync = os.fsync
        os.fsync = self.hear_fsync

    def hear(self, event, arguments):
        if event in EVENTS and self.path in str(arguments[0]):
            self.count(None)

    def hear_fsync(self, descriptor):
        self.count(descriptor)
        self.fsync(descriptor)

    def count(self, descriptor):
        self.seen += 1
        if self.seen == self.at:
            self.act(descriptor)


def die(descriptor=None):
    """Killed before the file reached the disk: half of it did."""
    if descriptor is not None and not os.path.isdir(f"/proc/self/fd/{descriptor}"):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def forked(task):
    """Exit status of a child that does the task; it gives up after a minute."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        signal.alarm(60)
        task()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def killed_before(path, operation, cached):
    if cached:  # else what is younger than two seconds is not remembered, and all of this is
        remembered.TICK = -(10**18)
    Counter(path, operation, die)
    work(path)


def resumed(path, cached, torn):
    if cached:
        remembered.TICK = -(10**18)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if torn else "error")
        work(path)


def tear(path, rng):
    """What a power cut can leave of the file that was written last."""
    files = shards(path) + shards(path, "rewards")
    last = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    if last is not None:
        last.write_bytes(last.read_bytes()[: rng.randrange(last.stat().st_size)])
    return last is not None


def main(folder, seed, count):
    rng = random.Random(seed)
    work(folder / "whole")
    forked(lambda: (c := Counter(folder / "n", 0, None), work(folder / "n"),
                    (folder / "count").write_text(str(c.seen))))  # fmt: skip
    operations = int((folder / "count").read_text())
    whole = contents(folder / "whole")
    for number, operation in enumerate(rng.sample(range(1, operations + 1), count)):
        path, cached = folder / str(number), rng.random() < 0.5
        status = forked(lambda p=path, n=operation, c=cached: killed_before(p, n, c))
        torn = number % 5 == 3 and path.exists() and tear(path, rng)
        again = forked(lambda p=path, c=cached, t=torn: resumed(p, c, t))
        left = contents(path)
        damaged = [name for name in left if name.startswith("damaged")]
        rest = {name: digest for name, digest in left.items() if name not in damaged}
        found = {
            "before": operation,
            "cached": cached,
            "status": status,
            "torn": torn,
            "resumed": again,
        }
        found |= {"damaged": len(damaged), "same": rest == whole}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
