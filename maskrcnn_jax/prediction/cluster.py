"""Many images on many machines: Ray gives out images, and large ones in bands of tiles.

Each worker is an actor with a predictor of its own, on one GPU, or on one machine where there are none. It
reads images and writes results itself, so every machine must see the same files under the same names. The
driver holds names and numbers alone.
"""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from maskrcnn_jax.errors import UserError, named_packages
from maskrcnn_jax.prediction.jobs import Outcome
from maskrcnn_jax.prediction.journal import Job
from maskrcnn_jax.prediction.worker import FAILURES, Worker, fault

BAND = 16  # Tiles that a worker gets at once.
_TRIES = 3  # What so many workers died of is not tried again.
_PATIENCE = 300  # seconds without any worker
_PAUSE = 1  # seconds before another is made in place of one that never began

Progress = Callable[[int, int], None]


class ClusterError(UserError):
    """There is no Ray, or no worker of it can work."""


@dataclass(eq=False)
class _Slide:
    """An image on its way.

    Attributes:
      start: when its first task was given out.
      open: how many of its tiles are not done; 0 too where it is predicted as a whole.
      failed: whether one of its tasks has; what is still to come of it is left out.
    """

    job: Job
    start: float = 0.0
    open: int = 0
    failed: bool = False


@dataclass(eq=False)
class _Task:
    """What one worker does at once: a band of tiles, or without numbers the whole job or what is left of it.

    Attributes:
      whole: whether the job is to be done however many tiles it has.
      tries: workers that died of it, or while they had it.
    """

    slide: _Slide
    numbers: range | None = None
    whole: bool = False
    tries: int = 0


class _Answer(NamedTuple):
    """A worker's: the job's objects, if it is done; its tiles, if they are too many for one; or a fault."""

    objects: int | None = None
    tiles: int = 0
    fault: str | None = None


class _Member:
    """The body of an actor."""

    def __init__(self, make: Callable[[Any], Worker], params: Any):
        self._worker = make(params)

    def ready(self) -> None:
        """Answers once the worker is made."""

    def do(self, job: Job, numbers: range | None, whole: bool) -> _Answer:
        """A task; what is wrong with the image is told, not raised."""
        try:
            if numbers is not None:
                self._worker.find_tiles(job, numbers)
                return _Answer()
            tiles = 0 if whole else self._worker.count_tiles(job)
            return _Answer(tiles=tiles) if tiles > BAND else _Answer(self._worker(job))
        except FAILURES as error:
            return _Answer(fault=fault(job.image, error))

    def notes(self) -> list[str]:
        return self._worker.notes


@dataclass
class Crew:
    """The workers of a Ray cluster; a context manager, which lets go of it.

    Attributes:
      address: of the cluster; `local` starts one on this machine, `auto` finds the one that runs here.
      make: makes a worker of parameters, on the machine where it works; must be picklable.
      params: arrays, which are sent to each machine once.
      lost: how many workers have died.
    """

    address: str
    make: Callable[[Any], Worker]
    params: Any
    lost: int = 0
    _pending: dict = field(default_factory=dict)
    _idle: list = field(default_factory=list)

    def __enter__(self) -> Crew:
        self._ray = _connected(self.address)
        self._params_there = self._ray.put(self.params)
        self._share, count = _share(self._ray)
        for _ in range(count):
            self._hire()
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def do(self, jobs: Iterable[Job], progress: Progress | None = None) -> Iterator[Outcome]:
        """Does all jobs, of which as many are begun as there are workers; gives each as it is done.

        Args:
          jobs: images, which may be many: they are taken as they are needed.
          progress: called with the number of tiles done and of all, of the large images so far.

        Raises:
          ClusterError: there is no worker left, or none could be made.
        """
        coming, follow = (_Task(_Slide(job)) for job in jobs), deque()
        done = total = 0
        alive = time.monotonic()
        while True:
            while self._idle and (task := follow.popleft() if follow else next(coming, None)):
                if not task.slide.failed:
                    self._give(task)
            busy = [task for _, task in self._pending.values() if task]
            if not busy and not follow:
                task = next(coming, None)
                if task is None:
                    return
                follow.append(task)
            alive = time.monotonic() if busy or self._idle else alive
            for task, answer in self._answers():
                if answer is None:
                    yield from self._again(task, follow)
                    continue
                slide = task.slide
                slide.open -= len(task.numbers or ())
                done += len(task.numbers or ())
                if answer.tiles:
                    slide.open = answer.tiles
                    total += answer.tiles
                    starts = range(0, answer.tiles, BAND)
                    follow.extend(_Task(slide, range(n, min(n + BAND, answer.tiles))) for n in starts)
                elif (answer.fault or answer.objects is not None) and not slide.failed:
                    slide.failed = bool(answer.fault)
                    yield _outcome(slide, answer.objects, answer.fault)
                elif slide.open == 0 and not slide.failed:
                    follow.appendleft(_Task(slide, whole=True))
                if progress and total:
                    progress(done, total)
            if time.monotonic() - alive > _PATIENCE:
                raise ClusterError(
                    f"no worker of the Ray cluster {self.address} is there for {_PATIENCE} s, of which "
                    f"{self.lost} were lost; the same command goes on once there are some"
                )

    def notes(self) -> list[str]:
        """What the workers that are left have to tell, see `Worker.notes`."""
        found: dict[str, None] = {}
        for answer in [member.notes.remote() for member in self._idle]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                found |= dict.fromkeys(self._ray.get(answer))
        return list(found)

    def _hire(self) -> None:
        """A new worker, which begins once it is there; where its machine is gone, another may come."""
        member = self._ray.remote(**self._share, max_restarts=0)(_Member).remote(
            self.make, self._params_there
        )
        self._pending[member.ready.remote()] = (member, None)

    def _give(self, task: _Task) -> None:
        task.slide.start = task.slide.start or time.perf_counter()
        member = self._idle.pop()
        answer = member.do.remote(task.slide.job, task.numbers, task.whole)
        self._pending[answer] = (member, task)

    def _answers(self) -> Iterator[tuple[_Task, _Answer | None]]:
        """Tasks that have come back; without an answer, if their worker is gone."""
        ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=1)
        for reference in ready:
            member, task = self._pending.pop(reference)
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError as error:
                if "creation task" in str(error):  # Ray has no class of its own for what `make` raises.
                    told = re.sub(r"\x1b\[\d+m", "", str(error))  # It is coloured.
                    raise ClusterError(f"no worker can be made on {self.address}: {told}") from error
                self.lost += 1
                if task is None:  # It never began, and the next one would not so soon.
                    time.sleep(_PAUSE)
                self._hire()
                answer = None
            else:
                self._idle.append(member)
            if task:
                yield task, answer

    def _again(self, task: _Task, follow: deque[_Task]) -> Iterator[Outcome]:
        """To be done by another worker, unless it is what they die of."""
        task.tries += 1
        if task.tries < _TRIES:
            follow.appendleft(task)
        elif not task.slide.failed:
            task.slide.failed = True
            image = task.slide.job.image
            yield _outcome(task.slide, None, f"{image}: {_TRIES} workers that had it died, of memory perhaps")


def _outcome(slide: _Slide, objects: int | None, fault: str | None) -> Outcome:
    return Outcome(slide.job, objects, time.perf_counter() - slide.start, fault)


def _connected(address: str) -> Any:
    """The module `ray`, once it has found the cluster."""
    with named_packages():
        import ray
    try:
        with warnings.catch_warnings():
            # JAX warns of forks; those of Ray are other programs at once.
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            ray.init(address, log_to_driver=False, logging_level="error", configure_logging=True)
    except Exception as error:  # Ray raises bare ones, too.
        raise ClusterError(f"--ray {address}: {error}") from error
    return ray


def _share(ray: Any) -> tuple[dict[str, float], int]:
    """What each worker needs of a machine, and how many of them there can be: one a GPU, or one a machine."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        return {"num_gpus": 1, "num_cpus": 1}, gpus
    if not nodes:
        raise ClusterError("the Ray cluster has no CPUs to offer")
    return {"num_cpus": min(node["CPU"] for node in nodes)}, len(nodes)
