"""How fast work goes and when it will end, from reports of (done, total)."""

import time
from collections.abc import Callable

__all__ = ["Pace", "written_duration", "written_rate"]


class Pace:
    """Rate and remaining time of one piece of work.

    The rate is the mean since the first report, which also says what was there before: a resumed
    run is not credited with the work of the run before it.

    Example:
        >>> clock = iter([0.0, 0.0, 10.0, 10.0]).__next__
        >>> pace = Pace(clock)
        >>> pace.update(40, 100)
        >>> pace.update(60, 100)
        >>> pace.rate, pace.remaining
        (2.0, 20.0)
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, aside: Callable[[], str] | None = None
    ) -> None:
        self._clock = clock
        self.aside = aside or (lambda: "")
        """What else there is to say of the work as it goes, or nothing."""
        self._began = clock()
        self._first: tuple[float, int] | None = None
        self._latest = self._began
        self.done = 0
        """Finished."""
        self.total: int | None = None
        """Wanted; None until the first report."""

    def update(self, done: int, total: int) -> None:
        """Take a report; one that repeats the last says nothing new."""
        if (done, total) == (self.done, self.total):
            return
        self._latest = self._clock()
        self.done, self.total = done, total
        if self._first is None:
            self._first = self._latest, done

    @property
    def elapsed(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._began

    @property
    def is_finished(self) -> bool:
        """Whether all is done."""
        return self.total is not None and self.done >= self.total

    @property
    def was_there(self) -> bool:
        """Whether all was done before, by an earlier run: nobody wants to hear of it again."""
        at_once = self._latest - self._began < 3
        return self.is_finished and at_once and self._first == (self._latest, self.done)

    @property
    def rate(self) -> float | None:
        """Units per second; None until a second report shows progress."""
        if self._first is None:
            return None
        seconds, units = self._latest - self._first[0], self.done - self._first[1]
        return units / seconds if seconds > 0 and units > 0 else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the end; None while the rate is not known."""
        if self.rate is None or self.total is None:
            return None
        since = self._clock() - self._latest
        return max(0.0, (self.total - self.done) / self.rate - since)


def written_duration(seconds: float) -> str:
    """Seconds as people write them.

    Example:
        >>> written_duration(7), written_duration(75), written_duration(3700)
        ('7 s', '1:15', '1:01:40')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def written_rate(rate: float) -> str:
    """Units per second, or seconds per unit where that is the readable number.

    Example:
        >>> written_rate(31.4), written_rate(3.14), written_rate(0.25)
        ('31/s', '3.1/s', '4.0 s each')
    """
    if rate < 1:
        return f"{1 / rate:.1f} s each" if rate > 0.1 else f"{1 / rate:.0f} s each"
    return f"{rate:.1f}/s" if rate < 10 else f"{rate:.0f}/s"
