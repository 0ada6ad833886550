"""Metrics on their way from the device to the screen and the run's history, fetched at log steps only."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.training.cluster import gather
from maskrcnn_jax.training.display import Display
from maskrcnn_jax.training.history import History


class NonFiniteLoss(UserError):
    """A loss became NaN or infinite; the last good checkpoint is still there."""


class Log:
    """Collects the metrics of each step without waiting for them; `flush` waits."""

    def __init__(
        self,
        records: Sequence[Record],
        display: Display,
        history: History | None,
        learning_rate: Callable[[int], float],
    ):
        """`learning_rate` is the schedule; `records` are what a batch's image numbers refer to.

        In a cluster only the first process has a history.
        """
        self._records, self._display, self._history = records, display, history
        self._learning_rate = learning_rate
        self._pending, self._warned = [], False
        self.is_new = True  # Nothing was flushed yet: a person waits for the first step.
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last log step out of images/s."""
        self._since, self._waited = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting(self, busy: jax.Array) -> Iterator[None]:
        """Times the block, in which the next batch is fetched, as far as the device may have idled in it.

        Args:
          busy: a result of what the device was last given. If it is there when the block ends, all of the
            block counts, though the device was idle for a part of it only; if not, the device never idled.
        """
        start = time.perf_counter()
        yield
        if busy.is_ready():
            self._waited += time.perf_counter() - start

    def add(self, step: int, metrics: dict, index: np.ndarray, cut: np.ndarray) -> None:
        """Keeps one step's metrics, and of each of its images its number and how many instances were cut.

        In a cluster, of this process's images.
        """
        self._pending.append((step, metrics, index, cut))

    def flush(self, checkpoint: int | None) -> None:
        """Writes and shows the mean of each metric over the steps since the last time.

        Args:
          checkpoint: the step of the latest one, for the error message.

        Raises:
          NonFiniteLoss: at the first step that has one.
        """
        self._pending = _of_all_processes(self._pending)
        fetched = jax.device_get([metrics for _, metrics, _, _ in self._pending])
        for (step, _, index, _), metrics in zip(self._pending, fetched, strict=True):
            self._require_finite(step, metrics, index, checkpoint)
        step = self._pending[-1][0]
        images = sum(len(index) for _, _, index, _ in self._pending)
        seconds = time.perf_counter() - self._since
        waits = 0.0 if self.is_new else self._waited / seconds  # The first batch has nothing to hide behind.
        numbers = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
        numbers["learning_rate"] = self._learning_rate(step - 1)
        cut = sum(int(cut.sum()) for _, _, _, cut in self._pending)
        rates = {"images_per_second": images / seconds, "data_wait": waits}
        self._write(step, numbers | rates | {"instances_cut": cut})
        self._display.update(step, numbers, **rates)
        if cut and not self._warned:
            self._warn_of_cut(cut)
        self._pending, self.is_new = [], False
        self.restart_clock()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of an evaluation after `step`."""
        self._write(step, {f"validation/{name}": value for name, value in metrics.items()})

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._history:
            self._history.write(step, numbers)

    def _warn_of_cut(self, cut: int) -> None:
        """Once, as it mostly happens again and again; the history goes on counting."""
        numbers = {int(i) for _, _, index, count in self._pending for i in index[count > 0]}
        names = ", ".join(self._records[i].name for i in sorted(numbers))
        self._display.say(
            f"{cut} instances did not fit into data.max_instances and are regions to ignore, of the images "
            f"{names}; instances_cut in history.jsonl goes on counting"
        )
        self._warned = True

    def _require_finite(self, step: int, metrics: dict, index: np.ndarray, checkpoint: int | None) -> None:
        bad = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            names = ", ".join(self._records[i].name for i in index)
            left = "No checkpoint was written yet" if checkpoint is None else f"Step {checkpoint} is saved"
            raise NonFiniteLoss(
                f"step {step}: {', '.join(bad)}, on the images {names}. {left}. "
                "Try a lower schedule.base or optimizer.clip_norm = 10."
            )


def _of_all_processes(pending: list[tuple]) -> list[tuple]:
    """The steps with the images of the whole batch, of which each process has kept its own."""
    if jax.process_count() == 1:
        return pending
    everyone = gather([(index, cut) for _, _, index, cut in pending])
    shares = zip(*everyone, strict=True)
    return [
        (step, metrics, *np.concatenate(share, axis=1))
        for (step, metrics, _, _), share in zip(pending, shares, strict=True)
    ]
