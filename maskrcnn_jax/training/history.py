"""The metrics of a run by step, as lines of JSON and as TensorBoard scalars."""

import json
import math
from pathlib import Path

import tensorflow as tf

from maskrcnn_jax.documents import DocumentError, parse_json
from maskrcnn_jax.files import atomic


class History:
    """Appends to `history.jsonl` and to the folder `tensorboard`; use as a context manager."""

    def __init__(self, workdir: Path, step: int):
        """Opens the history of a run that goes on after `step`; what is there of later steps is dropped."""
        path = workdir / "history.jsonl"
        _keep_until(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._board = tf.summary.create_file_writer(str(workdir / "tensorboard"))

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Appends the metrics of one step but those that are NaN; what is written survives a crash."""
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        # Raw protocol buffers: `tf.summary.scalar` would need TensorBoard itself to be installed.
        values = [tf.compat.v1.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        with self._board.as_default():
            summary = tf.compat.v1.Summary(value=values).SerializeToString()
            tf.summary.experimental.write_raw_pb(summary, step=step)
        self._board.flush()


def _keep_until(path: Path, step: int) -> None:
    """Drops the lines of later steps, and one that a crash left half."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if parse_json(line, path)["step"] <= step:
                kept.append(line + "\n")
        except (DocumentError, LookupError, TypeError):
            continue
    with atomic(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
