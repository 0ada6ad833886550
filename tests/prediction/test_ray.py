"""Two machines, which are two nodes of a Ray cluster on this one, find what one process finds."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import painters
import pytest
from painted import Painted, discs, paint
from PIL import Image

from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.prediction.cluster import ClusterError, Crew
from maskrcnn_jax.prediction.jobs import do_jobs
from maskrcnn_jax.prediction.journal import Job, Journal
from maskrcnn_jax.prediction.tiling import tile_grid
from maskrcnn_jax.prediction.worker import Worker

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'maskrcnn-jax[cluster]'")
# Ray leaves sockets and files open when it is shut down.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two machines; gives it, and the one that is not its head."""
    from ray.cluster_utils import Cluster

    # A machine that is merely busy is not dead.
    patience = {"health_check_timeout_ms": 120_000, "health_check_initial_delay_ms": 60_000}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": patience}
    with pytest.MonkeyPatch.context() as context:
        context.setenv("PYTHONPATH", os.pathsep.join(map(str, (TESTS, TESTS / "prediction", TESTS.parent))))
        context.setenv("RAY_USAGE_STATS_ENABLED", "0")
        context.setenv("JAX_PLATFORMS", "cpu")
        try:
            cluster = Cluster(initialize_head=True, head_node_args=head)
            machines = [cluster.add_node(num_cpus=1)]
        except Exception as error:
            if "timed out during startup" in str(error):
                pytest.skip("this machine is so busy that Ray gives up starting")
            raise
        yield cluster, machines
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def jobs(tmp_path, rng):
    """A slide of 324 tiles, small images, one that is none, and one that workers die of."""
    pictures = {
        "slide": paint((600, 600), list(discs(rng, (600, 600), 150, 9))),
        **{f"small_{n}": paint((60, 50), list(discs(rng, (60, 50), 5, 9))) for n in range(6)},
        "deadly": paint((30, 30), []),
    }
    pictures["deadly"][:9, :9] = (1, 2, 3)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [*pictures, "broken"]
    return [Job(tmp_path / f"{name}.png", name, n, f"{name}.png") for n, name in enumerate(names, 1)]


def fields(out):
    """Of a worker, but for its predictor."""
    outputs = Outputs(out, ("coco", "labels", "geojson", "csv", "overlay"), {1: "even", 2: "odd"})
    return {
        "outputs": outputs,
        "journal": Journal(out / "unfinished", {}),
        "tile": 64,
        "most": 1000,
        "min_score": 0.0,
    }


def files(folder):
    """The content of every file of results and of the journal."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".tiles" not in path.as_posix()
    }


def test_a_machine_is_lost_in_the_middle_and_all_is_found_as_by_one_process(nodes, jobs, tmp_path):
    cluster, machines = nodes
    seen, expected = [], {}
    good = [job for job in jobs if job.name not in ("deadly", "broken")]
    alone = Worker(Painted(), **fields(tmp_path / "alone"))
    (tmp_path / "alone").mkdir()
    (tmp_path / "out").mkdir()
    expected = {outcome.job.name: outcome.objects for outcome in do_jobs(alone, good)}

    def progress(done, total):
        seen.append((done, total))
        if done > 30 and machines:
            cluster.remove_node(machines.pop(), allow_graceful=False)

    make = partial(painters.make, fields=fields(tmp_path / "out"))
    with Crew(cluster.address, make, {"weights": 7}) as crew:
        found = {outcome.job.name: outcome for outcome in crew.do(jobs, progress)}
        assert crew.lost >= 4 and not machines
    assert found.keys() == {job.name for job in jobs}
    assert {name: outcome.objects for name, outcome in found.items() if not outcome.fault} == expected
    assert "broken.png" in found["broken"].fault and "cannot" in found["broken"].fault
    assert "3 workers that had it died" in found["deadly"].fault
    assert files(tmp_path / "out") == files(tmp_path / "alone")
    tiles = len(tile_grid((600, 600), 64, 8))
    assert seen[-1] == (tiles, tiles) and seen == sorted(seen)


def test_a_driver_that_is_stopped_goes_on_by_the_same_command(nodes, jobs, tmp_path):
    """By Ctrl-C, then by a kill: finished tiles are not done again; the files are those of one process."""
    images = [str(job.image) for job in jobs if job.name not in ("deadly", "broken")]
    tiles, before = tmp_path / "out" / "unfinished" / "slide.tiles", {}
    environment = os.environ | {"RAY_ADDRESS": nodes[0].address}  # Others on this machine are no concern.

    def start(out, *more):
        program = [
            sys.executable,
            str(TESTS / "prediction" / "painted_command.py"),
            "predict",
            "--bundle",
            "-",
        ]
        options = ["--tile", "64", "--min-score", "0", "--out", str(tmp_path / out), *more]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*program, *images, *options], env=environment, **pipes)

    def finished():
        return {path: path.stat().st_mtime_ns for path in tiles.glob("tile_*")}

    for number, most, code in ((signal.SIGINT, 30, 130), (signal.SIGKILL, 90, -signal.SIGKILL)):
        with start("out", "--ray", nodes[0].address) as driver:
            while len(finished()) < most and driver.poll() is None:
                time.sleep(0.1)
            driver.send_signal(number)
            said = driver.stderr.read()
        assert driver.returncode == code, said
        assert number == signal.SIGKILL or "interrupted; the same command goes on from there" in said
        assert before.items() <= finished().items()
        before = finished()
    for command in (("out", "--ray", "auto"), ("alone",)):
        with start(*command) as driver:
            said = driver.stderr.read()
        assert driver.returncode == 0, said
    assert len(files(tmp_path / "out")) == 4 * 7 + 2
    assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_a_worker_that_cannot_be_made_is_told(nodes):
    make = partial(painters.make, fields={"none": "such"})
    with Crew(nodes[0].address, make, {"weights": 7}) as crew, pytest.raises(ClusterError, match="none"):
        list(crew.do([Job(None, "a", 1, "a")]))


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    """Ray itself looks for it for more than a minute."""

    def init(address, **_):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError, match=r"--ray 127\.0\.0\.1:1: nobody"), Crew("127.0.0.1:1", None, None):
        pass
