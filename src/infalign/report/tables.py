"""The tables of a report, and the numbers behind its figures, as rows of strings.

Win rates are percent with one standard error; differences are percentage points with their
95 % interval, Student's t over prompts.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from infalign.report.finding import (
    find_difference,
    fraction_of_limit,
    has_limit,
    limit_of,
    split_words,
)
from infalign.report.measured import Comparison, Decomposition, Difference, Estimate, IdealRow
from infalign.report.numbers import (
    MISSING,
    count,
    duration,
    interval_points,
    nats_with_error,
    percent_with_error,
    points,
    real,
)
from infalign.report.record import Act, Stage

__all__ = [
    "Cell",
    "Table",
    "comparisons",
    "cost",
    "decomposition",
    "fractions",
    "ideal",
]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell with a look of its own."""

    text: str
    look: str = ""
    """CSS class: `strong`, `faint`, `words`."""
    span: int = 1
    """Columns it covers."""
    bar: float | None = None
    """Length of a bar behind the text, 0 to 1."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Head and rows; the first column names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    words: frozenset[int] = frozenset({0})
    """Columns that hold words, set flush left."""

    @classmethod
    def of(
        cls,
        caption: str,
        head: Iterable[str],
        rows: Iterable[Sequence[str | Cell]],
        note: str = "",
        words: Iterable[int] = (),
    ) -> "Table":
        """A table from plain strings and cells; `words` are the columns to set flush left."""
        cells = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
        return cls(caption, tuple(head), cells, note, frozenset({0, *words}))


def fractions(act: Act) -> Table | None:
    """Every policy's last checkpoint, beside the limit at its own KL where any is known."""
    limited = any(has_limit(frontier) for frontier in act.frontiers)
    head = ("policy", "win rate, %", "KL, nats")
    if limited:
        head = ("policy", "of the limit, %", "win rate, %", "limit, %", "KL, nats")
    rows: list[Sequence[str | Cell]] = []
    for frontier in act.frontiers:
        trained = [measured for measured in frontier.measured if measured.checkpoints]
        if trained:
            rows.append([Cell(split_words[frontier.split].capitalize(), "group", len(head))])
        for measured in trained:
            last = measured.checkpoints[-1]
            limit, won = limit_of(frontier, last), percent_with_error(last.win_rate)
            share = _share(fraction_of_limit(frontier, last))
            most = MISSING if limit is None else real(100 * limit, 1)
            values = (share, won, most) if limited else (won,)
            rows.append((measured.policy, *values, nats_with_error(last.kl)))
    if not rows:
        return None
    note = (
        "Of the limit: (W − 50\u00a0%) / (W* − 50\u00a0%), with the limit W* at the policy's own "
        "measured KL; its error is that of the win rate alone. "
    )
    note = f"{note if limited else ''}± one standard error over prompts."
    return Table.of("Last checkpoint of each policy", head, rows, note)


def _share(part: Estimate | None) -> Cell:
    """A fraction of the limit with a bar of its length."""
    bar = None if part is None else min(1.0, max(0.0, part.value))
    return Cell(percent_with_error(part), "bar", bar=bar)


def comparisons(act: Act) -> list[Table]:
    """Policies at equal KL, one table for each set of prompts."""
    tables = []
    for split in ("train", "held-out"):
        chosen = [c for c in act.comparisons if c.split == split]
        if chosen:
            tables.append(_comparison_table(act, chosen, split_words[split].capitalize()))
    return tables


def _comparison_table(act: Act, chosen: Sequence[Comparison], caption: str) -> Table:
    policies = list(dict.fromkeys(v.policy for c in chosen for v in c.win_rates))
    pairs = _pairs(act, chosen)
    head = ["KL, nats", *(f"{policy} − {baseline}, points" for policy, baseline in pairs)]
    head += [f"{policy}, %" for policy in policies]
    rows: list[list[str | Cell]] = []
    for judge, procedure in dict.fromkeys((c.judge, c.procedure) for c in chosen):
        role = "trained on" if judge == act.reward else "never trained on"
        words = f"{procedure}, judged by {judge} ({role})"
        rows.append([Cell(words, "group", len(head))])
        for c in (c for c in chosen if (c.judge, c.procedure) == (judge, procedure)):
            values = {v.policy: percent_with_error(v.win_rate) for v in c.win_rates}
            row: list[str | Cell] = [real(c.kl)]
            row += [_difference(find_difference(c, *pair)) for pair in pairs]
            rows.append(row + [values.get(policy, MISSING) for policy in policies])
    return Table.of(caption, head, rows)


def _pairs(act: Act, chosen: Sequence[Comparison]) -> list[tuple[str, str]]:
    """The act's own question first, then every other pair in order of appearance."""
    found = dict.fromkeys((d.policy, d.baseline) for c in chosen for d in c.differences)
    main = (act.treatment, act.baseline)
    others = [pair for pair in found if pair not in (main, main[::-1])]
    return [main, *others] if len(others) < len(found) else others


def _difference(found: Difference | None) -> Cell:
    if found is None:
        return Cell(MISSING, "faint")
    estimate, ends = found.difference, found.difference.interval()
    if ends is None:
        return Cell(points(estimate.value))
    text = f"{points(estimate.value)} [{interval_points(estimate, ', ')}]"
    return Cell(text, "faint" if ends[0] <= 0 <= ends[1] else "strong")


def ideal(rows: Sequence[IdealRow], procedure: str) -> Table | None:
    """Standard and decoded win rate of every transform's exact tilt."""
    if not rows:
        return None
    best: dict[tuple[float, str], float] = {}
    for row in rows:
        for kind in ("standard", "decoded"):
            value = getattr(row, kind).value
            best[row.kl, kind] = max(value, best.get((row.kl, kind), value))

    def cell(row: IdealRow, kind: str) -> Cell:
        estimate = getattr(row, kind)
        leads = estimate.value == best[row.kl, kind]
        return Cell(percent_with_error(estimate), "strong" if leads else "")

    head = ("transform", "standard, %", f"{procedure}, %", "β")
    body: list[Sequence[str | Cell]] = []
    for kl in dict.fromkeys(row.kl for row in rows):
        body.append([Cell(f"KL {real(kl)} nats", "group", len(head))])
        for row in (row for row in rows if row.kl == kl):
            values = (cell(row, "standard"), cell(row, "decoded"))
            body.append((row.transform, *values, real(row.beta, 3)))
    note = "± one standard error over prompts. Bold: the largest of its column at that KL."
    return Table.of("Exact tilt of the stored rollouts", head, body, note)


def decomposition(found: Decomposition) -> Table:
    """Each level's win rate and what was lost since the level above."""
    rows = []
    for above, row in zip((None, *found.rows), found.rows, strict=False):
        error = "" if row.se is None else f"\u00a0±\u00a0{100 * row.se:.1f}"
        lost = Cell(MISSING, "faint") if above is None else Cell(points(row.value - above.value))
        rows.append((row.label, real(100 * row.value, 1) + error, lost, Cell(row.note, "words")))
    at = "" if found.kl is None else f" at KL {real(found.kl)} nats"
    head = ("level", "win rate, %", "change, points", "how it was obtained")
    return Table.of(f"{found.policy}{at}", head, rows, words=[3])


def cost(stages: Sequence[Stage]) -> Table | None:
    """Seconds, responses and tokens by stage, and their sum."""
    if not stages:
        return None
    rows: list[Sequence[str | Cell]] = []
    for stage in stages:
        rate = MISSING
        if stage.tokens is not None and stage.seconds > 0:
            rate = count(round(stage.tokens / stage.seconds))
        rows.append(
            (
                stage.name,
                duration(stage.seconds),
                count(stage.responses),
                count(stage.tokens),
                rate,
                Cell(stage.note, "words"),
            )
        )
    total = (
        Cell("sum of stages", "strong"),
        Cell(duration(sum(stage.seconds for stage in stages)), "strong"),
        Cell(_sum(stage.responses for stage in stages), "strong"),
        Cell(_sum(stage.tokens for stage in stages), "strong"),
        "",
        "",
    )
    head = ("stage", "time", "responses", "tokens", "tokens per second", "note")
    return Table.of("Time and text by stage", head, [*rows, total], words=[5])


def _sum(values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    return count(sum(known)) if known else MISSING
