"""Real processes on this machine that train as one run, forked from one that has imported everything."""

import contextlib
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from maskrcnn_jax.commands import doors, train
from maskrcnn_jax.training import loop
from maskrcnn_jax.training.state import TrainState

_FORKS = multiprocessing.get_context("forkserver")
# What takes long to import is there when they start.
_FORKS.set_forkserver_preload(["maskrcnn_jax.training.loop", "maskrcnn_jax.commands.train"])
CONFIG = Path(__file__).parents[1] / "tiny_config.py"


class Processes:
    """So many processes with so many devices each, which run `maskrcnn-jax train` on the tiny config."""

    def __init__(self, count: int, devices: int, workdir: Path, cache: Path, *flags: str, quick: bool):
        """Starts them; what process i prints is in `WORKDIR.i.txt`. With `quick` they take `quick_step`s."""
        self.logs = [workdir.with_name(f"{workdir.name}.{i}.txt") for i in range(count)]
        there = [f"--coordinator=127.0.0.1:{_free_port()}", f"--num_processes={count}"]
        flags = [f"--config={CONFIG}", f"--workdir={workdir}", *flags, *there]
        self.members = [
            _FORKS.Process(target=_train, args=([*flags, f"--process_id={i}"], devices, cache, log, quick))
            for i, log in enumerate(self.logs)
        ]
        for log, member in zip(self.logs, self.members, strict=True):
            log.touch()
            member.start()

    def kill(self) -> None:
        """Ends whatever still runs."""
        for member in self.members:
            member.kill()
            member.join()

    def wait(self, timeout: float = 900) -> list[int]:
        """The exit codes of all, once they have ended."""
        end = time.monotonic() + timeout
        for member in self.members:
            member.join(max(end - time.monotonic(), 0))
        late = [i for i, member in enumerate(self.members) if member.is_alive()]
        self.kill()
        assert not late, f"processes {late} did not end:\n{self.printed()}"
        return [member.exitcode for member in self.members]

    def wait_for(self, text: str, timeout: float = 900) -> None:
        """Until process 0 has printed `text`."""
        end = time.monotonic() + timeout
        while text not in self.logs[0].read_text():
            alive = all(member.is_alive() for member in self.members)
            assert alive and time.monotonic() < end, self.printed()
            time.sleep(0.05)

    def printed(self, index: int | None = None) -> str:
        """By one process, or by all."""
        logs = self.logs if index is None else [self.logs[index]]
        return "\n".join(log.read_text() for log in logs)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def quick_step(_model, optimizer, _tell, _mesh, _accumulate, _device_means):
    """In place of `make_train_step`, and soon compiled: all depends on every image and on the key."""

    def step(state, batch, key):
        noise = jax.random.uniform(jax.random.fold_in(key, state.step))
        images = batch.images.astype(jnp.float32) / 255
        weight = jnp.arange(1.0, 1.0 + len(images))[:, None, None, None]
        loss = (images * weight).mean() + jnp.log1p(batch.boxes).mean() + noise
        gradients = jax.tree.map(lambda x: jnp.tanh(x) * loss + 0.1 * noise, state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        names = ("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc", "gradient_norm")
        metrics = dict.fromkeys(names, noise) | {"loss": loss + optax.tree.norm(params)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def _train(flags: list[str], devices: int, cache: Path, log: Path, quick: bool) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    settings = {
        "jax_platforms": "cpu",
        "jax_num_cpu_devices": devices,
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
    if quick:
        loop.make_train_step = quick_step
    sys.exit(doors.main(train, ["train.py", *flags]))
