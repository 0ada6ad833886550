"""Real processes on this machine, with a coordinator on loopback, train as one run."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import jax
import pytest
from processes import Processes

from maskrcnn_jax.training import cluster
from maskrcnn_jax.training.cluster import ClusterError, joined

STEPS, EVERY = 24, 4  # and steps from one checkpoint to the next
ENDLESS = 100_000
CLOCK = ("images_per_second", "data_wait")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clusters")


@pytest.fixture(scope="module")
def start(folder):
    """Starts a cluster that trains for `steps` in the folder `name`, with four images a step."""
    compiled = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", folder / "compiled"))
    started = []

    def start(count, devices, name, steps=STEPS, quick=True):
        flags = {"batch_size": 4, "steps": steps, "log_every": 1, "checkpoint_every": EVERY}
        flags = [f"--config.{key}={value}" for key, value in flags.items()]
        flags.append("--config.data.validation_images=0")
        started.append(Processes(count, devices, folder / name, compiled, *flags, quick=quick))
        return started[-1]

    yield start
    for running in started:
        running.kill()  # What a failed test leaves would keep the interpreter from ending.


@pytest.fixture(scope="module")
def one(start, folder):
    """One process with four devices, unbroken."""
    running = start(1, 4, "one")
    assert running.wait() == [0], running.printed()
    return folder / "one"


@pytest.fixture(scope="module")
def two(start, folder):
    """Two processes with two devices each, unbroken."""
    running = start(2, 2, "two")
    assert running.wait() == [0, 0], running.printed()
    assert "on 4 x cpu of 2 processes" in running.printed(0)
    assert "step" not in running.printed(1)
    return folder / "two"


def history(workdir):
    """The lines of a run's history, without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def assert_same_to_rounding(workdir, expected, steps):
    found = history(workdir)
    assert [line["step"] for line in found] == [*range(1, steps + 1)]
    for line, wanted in zip(found, history(expected), strict=False):
        assert line == pytest.approx(wanted, rel=1e-4, abs=1e-6), line["step"]
    assert [line["instances_cut"] for line in found] == [
        line["instances_cut"] for line in history(expected)[:steps]
    ]


def test_two_processes_of_two_devices_train_a_model_as_one_of_four(start, folder):
    """What is drawn is the same, too, or the losses of the second step would differ by more."""
    both = [start(count, 4 // count, f"model_{count}", steps=3, quick=False) for count in (1, 2)]
    for running in both:
        assert not any(running.wait()), running.printed()
    assert_same_to_rounding(folder / "model_2", folder / "model_1", 3)


def test_two_processes_of_two_devices_leave_what_one_of_four_leaves(one, two):
    assert_same_to_rounding(two, one, STEPS)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


@pytest.mark.parametrize(("before", "processes"), [("one", 4), ("two", 1)])
def test_a_run_goes_on_with_another_number_of_processes(start, one, two, folder, before, processes):
    """As if that had gone on: the same draws, and losses to rounding."""
    name = f"{before}_{processes}"
    shutil.copytree(folder / before, folder / name)
    shutil.rmtree(folder / name / "checkpoints" / str(STEPS))
    running = start(processes, 4 // processes, name, steps=STEPS - 2)
    assert running.wait() == [0] * processes, running.printed()
    assert f"resumed at step {STEPS - EVERY}" in running.printed(0)
    assert_same_to_rounding(folder / name, one, STEPS - 2)


def test_sigterm_at_one_process_saves_one_step_and_ends_all(start, folder):
    running = start(2, 2, "stopped", steps=ENDLESS)
    running.wait_for("step 2/")
    os.kill(running.members[1].pid, signal.SIGTERM)
    assert running.wait() == [130, 130], running.printed()
    saved = max(int(path.name) for path in (folder / "stopped" / "checkpoints").iterdir())
    assert [line["step"] for line in history(folder / "stopped")] == [*range(1, saved + 1)]
    for n in (0, 1):
        assert f"stopped; step {saved} is saved in {folder / 'stopped'}; the same" in running.printed(n)


def test_after_a_process_was_killed_the_others_end_and_the_same_command_goes_on(start, two, folder):
    running = start(2, 2, "killed", steps=ENDLESS)
    running.wait_for(f"step {2 * EVERY + 1}/")  # The checkpoint before the last is whole.
    running.members[1].kill()
    begin = time.monotonic()
    codes = running.wait(timeout=60)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None), running.printed()
    assert time.monotonic() - begin < 60
    told = ("another process of the cluster is gone", "This most likely indicates that another task died")
    assert any(message in running.printed(0) for message in told)
    running = start(2, 2, "killed")
    assert running.wait() == [0, 0] and "resumed at step" in running.printed(0), running.printed()
    assert history(folder / "killed") == history(two)


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, (None, None, None, "auto"), None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, (None, None, None, "auto"), None),  # a shell, no srun
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, (None, None, None, "auto"), None),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "4"}, (None, None, None, "auto"), "slurm"),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "4"}, (None, None, None, "none"), None),
        (
            {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"},
            (None, None, None, "auto"),
            "ompi",
        ),
        ({}, (None, None, None, "k8s"), "k8s"),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "4"}, ("a:1", 0, 2, "auto"), "deactivate"),
    ],
)
def test_who_is_asked_for_the_cluster(monkeypatch, environment, arguments, expected):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: asked.append(given))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    monkeypatch.setenv("XLA_FLAGS", "")
    with joined(*arguments):
        pass
    assert [given["cluster_detection_method"] for given in asked] == ([expected] if expected else [])


def test_half_an_address_is_refused():
    with pytest.raises(ClusterError, match="go together: give num_processes, too"), joined("host:1", 0):
        pass


def test_what_differs_between_processes_is_told_with_their_numbers(monkeypatch):
    monkeypatch.setattr(cluster, "gather", lambda value: [value, {"steps": 2}, value])
    with pytest.raises(ClusterError, match="the config of process 1 is not that of process 0: start all"):
        cluster.require_same("the config", {"steps": 1}, "start all alike")


def test_an_error_at_one_process_ends_all(monkeypatch):
    monkeypatch.setattr(cluster, "gather", lambda value: [None, "x.png is damaged"])
    with pytest.raises(ClusterError, match=r"process 1: x\.png is damaged"), cluster.agreed():
        pass
    monkeypatch.setattr(cluster, "gather", lambda value: ["y.png is damaged", None])
    with pytest.raises(OSError, match=r"y\.png"), cluster.agreed():
        raise OSError("y.png is damaged")
