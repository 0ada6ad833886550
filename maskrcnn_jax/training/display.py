"""What a person sees while a model trains: bars in a terminal, plain lines where none is."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SHORT = {
    "loss": "loss",
    "loss_cls": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
    "loss_rpn_cls": "rpn",
    "loss_rpn_loc": "rpn box",
}
_SLOW_DATA = 0.03  # From this share on, waiting for data is worth a word.


class Display:
    """Shows steps, losses, images/s and the time left. Use as a context manager."""

    def __init__(self, console: Console, first: int, steps: int):
        """`first` is the number of steps that an earlier run has done, `steps` how many there shall be."""
        self._console, self._first, self._steps = console, first, steps
        self._start = time.perf_counter()
        self._bar = _progress(console, TextColumn("{task.fields[numbers]}"))
        self._task = self._bar.add_task("train", total=steps, completed=first, numbers="compiling ...")

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def update(
        self, step: int, metrics: dict[str, float], images_per_second: float, data_wait: float
    ) -> None:
        """Shows the metrics of the steps up to `step`; `data_wait` is the share of time without a batch."""
        numbers = "  ".join(f"{short} {metrics[name]:.3f}" for name, short in _SHORT.items())
        numbers += f"  {images_per_second:.1f} images/s"
        if data_wait >= _SLOW_DATA:
            numbers += f"  {data_wait:.0%} of it waiting for data"
        self._bar.update(self._task, completed=step, numbers=numbers)
        if not self._console.is_terminal:
            spent = time.perf_counter() - self._start
            left = spent / max(step - self._first, 1) * (self._steps - step)
            self.say(f"step {step}/{self._steps}  {numbers}  {left / 60:.1f} min left")

    def say(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(message, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def counter(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that counts images and goes when they are done; gives the function that moves it."""
    bar = _progress(console, transient=True)
    task = bar.add_task(what, total=None)
    with bar:
        yield lambda done, count: bar.update(task, completed=done, total=count, refresh=True)


def _progress(console: Console, *columns: TextColumn, transient: bool = False) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )
