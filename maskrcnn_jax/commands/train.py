"""Trains a Mask R-CNN.

maskrcnn-jax train [--config NAME_OR_FILE] [--workdir DIR] [--config.FIELD=VALUE ...]
    [--coordinator HOST:PORT --process_id I --num_processes N | --cluster auto|none|slurm|ompi|mpi4py|k8s]

--config takes the name of an experiment that comes with the package (synthetic_tiny, nuclei_small, ...), or
a file. Several processes, of one host or many, train as one run: started by SLURM or Open MPI they find each
other; otherwise each is told who it is. See docs/clusters.md.
`python train.py` is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from maskrcnn_jax.commands import doors

if TYPE_CHECKING:
    from ml_collections import ConfigDict
    from rich.console import Console

    from maskrcnn_jax.config import MaskRCNNConfig
    from maskrcnn_jax.data.records import Record
    from maskrcnn_jax.evaluation.coco import Categories
    from maskrcnn_jax.evaluation.evaluator import Evaluation
    from maskrcnn_jax.experiment import Experiment


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """The command's flags."""
    doors.define_config(values, argv, default="synthetic_tiny")
    flags.DEFINE_string(
        "workdir",
        None,
        "Where the run is written; runs/NAME of the config if not given.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "reset_optimizer",
        False,
        "Go on from the last checkpoint's weights with a fresh optimiser: no momentum, a fresh average.",
        flag_values=values,
    )
    _define_cluster(values)


def _define_cluster(values: flags.FlagValues) -> None:
    there = {"flag_values": values}
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where all can reach it.", **there)
    flags.DEFINE_integer("process_id", None, "Which process this is, from 0.", lower_bound=0, **there)
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1, **there)
    flags.DEFINE_enum(
        "cluster",
        "auto",
        ["auto", "none", "slurm", "ompi", "mpi4py", "k8s"],
        "Who says which process this is where these three are not given: auto asks SLURM or Open MPI if they "
        "started several.",
        **there,
    )


def run(values: flags.FlagValues) -> None:
    """Trains as the flags say."""
    from maskrcnn_jax.training.cluster import joined

    doors.keep_tensorflow_off_gpus()
    name = Path(values["config"].config_filename).stem
    workdir = Path(values.workdir or f"runs/{name}")
    with joined(values.coordinator, values.process_id, values.num_processes, values.cluster):
        train(values.config, workdir, reset_optimizer=values.reset_optimizer)


def train(
    config: ConfigDict | Experiment,
    workdir: Path,
    *,
    console: Console | None = None,
    reset_optimizer: bool = False,
) -> Evaluation | None:
    """Trains as `training.loop.train` does, and evaluates with this package's predictor and report.

    `config.init_from` may be the name of a model that comes with the package.
    """
    from maskrcnn_jax.experiment import Experiment
    from maskrcnn_jax.training import loop
    from maskrcnn_jax.zoo import resolve

    experiment = Experiment.from_dict(config.to_dict())
    source = resolve(experiment.init_from) or experiment.init_from
    return loop.train(
        replace(experiment, init_from=str(source)),
        workdir,
        evaluate=Evaluate(),
        console=console,
        reset_optimizer=reset_optimizer,
    )


class Evaluate:
    """Predicts and scores a model's answers; one compiled predictor serves all evaluations of a run."""

    def __init__(self):
        self._predictor = None

    def __call__(
        self,
        config: MaskRCNNConfig,
        params: dict,
        records: Sequence[Record],
        folder: Path,
        *,
        categories: Categories,
        min_score: float,
        progress: Callable[[int, int], None],
    ) -> Evaluation | None:
        """Writes results, metrics and pictures into `folder`; see `outputs.report.write_evaluation`."""
        import jax

        from maskrcnn_jax.evaluation.evaluator import Crew
        from maskrcnn_jax.outputs.report import write_evaluation
        from maskrcnn_jax.prediction.predictor import Predictor
        from maskrcnn_jax.training.cluster import gather

        if self._predictor is None:
            self._predictor = Predictor(config, params)
        else:
            self._predictor.replace_params(params)
        return write_evaluation(
            self._predictor,
            records,
            folder,
            categories=categories,
            min_score=min_score,
            progress=progress,
            crew=Crew(jax.process_index(), jax.process_count(), gather),
        )
