"""Many images one after the other: what goes on at once, and what becomes of those that fail."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from maskrcnn_jax.prediction.journal import Job
from maskrcnn_jax.prediction.tiling import ahead
from maskrcnn_jax.prediction.worker import FAILURES, Found, Progress, Seen, Worker, fault


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
      job: the image.
      objects: how many it has; None if it failed.
      seconds: that it took, of however many workers.
      fault: why it failed, in a line.
    """

    job: Job
    objects: int | None
    seconds: float
    fault: str | None = None


def do_jobs(worker: Worker, jobs: Iterable[Job], progress: Progress | None = None) -> Iterator[Outcome]:
    """One job after the other; what is wrong with one does not stop the next.

    While the device works on `worker.batch` images, the next are read, and the files of those before written.

    Args:
      worker: does them.
      jobs: what is to be done.
      progress: called with the number of tiles done and of all, of an image that is predicted in tiles.
    """

    def look(job: Job) -> _Task:
        start = time.perf_counter()
        try:
            return _Task(job, start, worker.look(job))
        except FAILURES as error:
            return _Task(job, start, None, error)

    with ThreadPoolExecutor(1) as writer:
        writing: deque[Future[list[Outcome]]] = deque()
        for tasks in _together(ahead(look, jobs, worker.batch), worker.batch):
            writing.append(writer.submit(partial(_written, worker), tasks, _started(worker, tasks, progress)))
            while len(writing) > 1:
                yield from writing.popleft().result()
        while writing:
            yield from writing.popleft().result()


class _Task(NamedTuple):
    """A job under way, and what has gone wrong so far."""

    job: Job
    start: float
    seen: Seen | None
    error: Exception | None = None


def _together(tasks: Iterable[_Task], batch: int) -> Iterator[list[_Task]]:
    """Tasks for the device at once: whole images of one zoom. Others come alone."""
    group: list[_Task] = []
    for task in tasks:
        alone = task.seen is None or task.seen.tile
        if group and (alone or len(group) == batch or task.seen.zoom != group[0].seen.zoom):
            yield group
            group = []
        if alone:
            yield [task]
        else:
            group.append(task)
    if group:
        yield group


def _started(
    worker: Worker, tasks: Sequence[_Task], progress: Progress | None
) -> Callable[[], list[Found]] | Exception:
    """What waits for the objects of images that are on the device from now on, or why they are not."""
    try:
        if tasks[0].error:
            return tasks[0].error
        if tasks[0].seen.tile:
            found = worker.find_in_tiles(tasks[0].seen, progress)
            return lambda: [found]
        return worker.start([task.seen for task in tasks])
    except FAILURES as error:
        return error


def _written(
    worker: Worker, tasks: Sequence[_Task], finish: Callable[[], list[Found]] | Exception
) -> list[Outcome]:
    """Writes the results of images; those that fail together are tried again one by one."""
    try:
        if isinstance(finish, Exception):
            raise finish
        results = finish()
    except FAILURES as error:
        if len(tasks) == 1:
            return [_failed(tasks[0], error)]
        single = ((task, _started(worker, [task], None)) for task in tasks)
        return [outcome for task, finish in single for outcome in _written(worker, [task], finish)]
    outcomes = []
    for task, found in zip(tasks, results, strict=True):
        try:
            objects = worker.write(task.seen, found)
        except FAILURES as error:
            outcomes.append(_failed(task, error))
        else:
            outcomes.append(Outcome(task.job, objects, time.perf_counter() - task.start))
    return outcomes


def _failed(task: _Task, error: Exception) -> Outcome:
    if task.seen:
        task.seen.source.close()
    return Outcome(task.job, None, time.perf_counter() - task.start, fault(task.job.image, error))
