"""What a person sees of a run over many images: bars or lines on the way, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from maskrcnn_jax.prediction.jobs import Outcome
from maskrcnn_jax.prediction.journal import Job

# From jobs, and what is called with the number of tiles done and of all, to their outcomes.
Do = Callable[[Iterable[Job], Callable[[int, int], None]], Iterator[Outcome]]


class Done(NamedTuple):
    """An image's name, its number of objects (None if it failed), and what it took (None if done before)."""

    name: str
    objects: int | None
    seconds: float | None


def do_all(
    jobs: Sequence[Job],
    before: Mapping[str, int],
    faults: Sequence[str],
    do: Do,
) -> list[Done]:
    """All images, with bars in a terminal, and lines where there is none; `do` says in what order."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn()
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    done = {job.name: Done(job.name, before[job.name], None) for job in jobs if job.name in before}
    start, objects = time.perf_counter(), sum(before.values())
    say(console, *faults)
    with bars:
        images = bars.add_task("images", total=len(jobs), completed=len(done))
        tiles = bars.add_task("tiles", visible=False)
        rest = (job for job in jobs if job.name not in before)
        for outcome in do(rest, lambda n, all: bars.update(tiles, completed=n, total=all, visible=n < all)):
            name, found = outcome.job.name, outcome.objects
            done[name] = Done(name, found, outcome.seconds)
            objects += found or 0
            rate = (len(done) - len(before)) / (time.perf_counter() - start)
            whole = f"images, {objects:,} objects, {rate:.2g} images/s"
            bars.update(images, completed=len(done), description=whole)
            if outcome.fault:
                say(console, outcome.fault)
            elif not console.is_terminal:
                say(console, f"{len(done)}/{len(jobs)} {name}: {found:,}, {outcome.seconds:.1f} s")
    return [done[job.name] for job in jobs]


def report(done: Sequence[Done], notes: Sequence[str], out: Path) -> None:
    """What was found, image by image, and what a person should know of it."""
    console = Console()
    view = Table(show_footer=len(done) > 1)
    good = [row for row in done if row.objects is not None]
    view.add_column("image", f"{len(good)} of {len(done)}", overflow="fold")
    view.add_column("objects", f"{sum(row.objects for row in good):,}", justify="right")
    view.add_column("seconds", f"{sum(row.seconds or 0 for row in done):.1f}", justify="right")
    for row in done:
        objects = "[red]failed[/red]" if row.objects is None else f"{row.objects:,}"
        view.add_row(Text(row.name), objects, "before" if row.seconds is None else f"{row.seconds:.1f}")
    console.print(view)
    say(console, *notes, *([f"results are in {out}"] if good else []))


def say(console: Console, *lines: str) -> None:
    """Lines as they are."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
