"""Prepared shards give back every record, survive being killed, notice damage, and hold nothing in memory."""

import itertools
import os
import subprocess
import sys
import textwrap
import weakref
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from maskrcnn_jax.data.builder import prepare
from maskrcnn_jax.data.datasets import load_split
from maskrcnn_jax.data.entries import Entry, Reading
from maskrcnn_jax.data.pipeline import batches
from maskrcnn_jax.data.prepared import PreparedRecords
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.data.synthetic import draw_records
from maskrcnn_jax.errors import DataError, Fault
from maskrcnn_jax.experiment import DataConfig

OPTIONS = {
    "augment": ({"op": "random_crop", "size": 48}, {"op": "flip_horizontal"}),
    "canvas": (48, 48),
    "batch_size": 2,
    "max_instances": 8,
    "seed": 4,
}


def entry_of(record, faults=()):
    reading = Reading(None if faults else record, list(faults), [], [])
    return Entry(record.image_id, record.name, f"{record.name}.png", lambda: reading)


@pytest.fixture(scope="module")
def records():
    """Five with overlaps, the last without instances and with a crowd in the first."""
    drawn = draw_records(4, seed=1, size=64, nuclei=(5, 9))
    first = drawn[0]
    crowd = np.arange(len(first.classes)) == 2
    annotated = np.random.default_rng(0).normal(9, 3, (len(first.classes), 5))  # float64 to the last bit
    annotated[1:3] = np.nan
    classes = first.classes + 3
    drawn[0] = Record(first.image_id, first.name, first.image, first.layers, classes, crowd, annotated)
    return [*drawn, draw_records(1, seed=2, size=64, nuclei=(0, 0), name="Żółw")[0]]


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    entries = [entry_of(record) for record in records]
    root = tmp_path_factory.mktemp("tfds")
    return prepare(root, {"train": entries[:3], "validation": entries[3:]}, categories=("a", "b"))


def assert_same(a, b):
    assert (a.image_id, a.name) == (b.image_id, b.name)
    for name in ("image", "layers", "classes", "crowd", "annotated"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_every_record_comes_back_in_order(records, folder):
    train, validation = (PreparedRecords(folder, split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (3, 2) and train.categories == ("a", "b")
    for a, b in zip([*train, *validation], records, strict=True):
        assert_same(a, b)
    assert_same(validation[-1], records[-1])
    assert train.depth == max(len(record.layers) for record in records[:3])
    with pytest.raises(IndexError):
        train[3]


def test_training_reads_the_same_batches_from_disk(records, folder):
    streams = (
        batches(source, steps=4, **OPTIONS) for source in (records[:3], PreparedRecords(folder, "train"))
    )
    for a, b in itertools.zip_longest(*streams):
        for name, x, y in zip(a._fields, a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


def test_reading_holds_no_record(folder):
    alive = weakref.WeakSet()

    class Watched(PreparedRecords):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            alive.add(record)
            return record

    most = 0
    for _ in batches(Watched(folder, "train"), steps=40, **OPTIONS):
        most = max(most, len(alive))
    assert most < 30, "80 records were read"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tfds_loads_it_by_name_and_folder(records, folder):
    dataset = tfds.load("instance_records", data_dir=folder.parents[1], split="validation")
    for row, record in zip(tfds.as_numpy(dataset), records[3:], strict=True):
        assert row["name"].decode() == record.name and row["image_id"] == record.image_id
        np.testing.assert_array_equal(row["image"], record.image)
        np.testing.assert_array_equal(row["layers"][..., 0], record.layers)
        np.testing.assert_array_equal(row["classes"], record.classes)


def test_progress_is_told_and_nothing_else_is_printed(records, tmp_path, capsys):
    entries = [entry_of(record) for record in records]
    prepare(tmp_path, {"train": entries[:3], "validation": entries[3:]}, progress=print)
    assert capsys.readouterr().out.splitlines() == [f"{done} 5" for done in range(1, 6)]


def test_a_second_run_takes_what_is_there_and_refuses_other_images(records, folder):
    entries = [entry_of(record)._replace(read=None) for record in records]
    splits = {"train": entries[:3], "validation": entries[3:]}
    assert prepare(folder.parents[1], splits) == folder
    with pytest.raises(ValueError, match="holds other images than asked for: delete it"):
        prepare(folder.parents[1], {"train": entries[:2], "validation": entries[3:]})


def test_all_faults_are_raised_and_nothing_is_written(records, tmp_path):
    faults = [Fault("b.png", "is gone", "restore it"), Fault("c.png", "is empty", "delete it")]
    entries = [entry_of(records[0]), *(entry_of(r, [f]) for r, f in zip(records[1:3], faults, strict=True))]
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, {"train": entries})
    assert caught.value.faults == faults
    assert not list(tmp_path.glob("*/1.*")) and not list(tmp_path.glob("*/incomplete*"))


def test_a_run_that_was_killed_is_started_over(records, tmp_path):
    """The first run dies while it writes; the second leaves no trace of it."""
    script = """
        import os, signal, sys
        from maskrcnn_jax.data.builder import prepare
        from maskrcnn_jax.data.entries import Entry, Reading
        from maskrcnn_jax.data.synthetic import draw_records

        records = draw_records(3, seed=1, size=64, nuclei=(5, 9))
        entries = [Entry(r.image_id, r.name, "", lambda r=r: Reading(r, [], [], [])) for r in records]
        die = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 2 else None
        prepare(sys.argv[1], {"train": entries}, progress=die)
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -9
    assert list(tmp_path.glob("*/incomplete*")) and not list(tmp_path.glob("*/1.*"))
    target = prepare(tmp_path, {"train": [entry_of(record) for record in records[:3]]})
    assert len(PreparedRecords(target, "train")) == 3
    assert not list(tmp_path.glob("*/incomplete*"))


def test_the_order_stays_when_tfds_sorts_on_disk_and_no_bucket_holds_all(records, tmp_path, monkeypatch):
    from tensorflow_datasets.core import shuffle

    sizes = []
    read_values = shuffle._Bucket.read_values

    def watched(bucket):
        rows = list(read_values(bucket))
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 50_000)
    monkeypatch.setattr(shuffle._Bucket, "read_values", watched)
    many = [entry_of(records[i % 5])._replace(image_id=i) for i in range(30)]
    target = prepare(tmp_path, {"train": many})
    assert sum(sizes) == 30 and max(sizes) == 1
    for record, i in zip(PreparedRecords(target, "train"), range(30), strict=True):
        assert record.name == records[i % 5].name


@pytest.fixture
def damaged(records, tmp_path):
    folder = prepare(tmp_path, {"train": [entry_of(record) for record in records[:3]]})
    (shard,) = folder.glob("*.tfrecord*")
    return folder, shard


def test_a_flipped_bit_is_noticed_and_its_record_named(damaged):
    folder, shard = damaged
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    opened = PreparedRecords(folder, "train")
    with pytest.raises(DataError, match=r"tfrecord.*, record 1: is damaged: .*; delete the folder"):
        list(opened)
    with pytest.raises(DataError, match="record 1: is damaged"):
        list(batches(opened, steps=3, **OPTIONS))
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(str(shard)))


def test_a_shard_that_is_cut_or_missing_is_noticed(damaged):
    folder, shard = damaged
    content = shard.read_bytes()
    shard.write_bytes(content[:-9])
    with pytest.raises(DataError, match="ends within the record that begins at byte"):
        PreparedRecords(folder, "train")
    shard.write_bytes(b"")
    with pytest.raises(DataError, match="holds 0 of 3 records"):
        PreparedRecords(folder, "train")


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no prepared data set"):
        PreparedRecords(tmp_path, "train")
    with pytest.raises(ValueError, match="has no split 'test', only train, validation"):
        PreparedRecords(folder, "test")


def test_a_config_with_a_prepared_folder_reads_the_same_records(tmp_path, rng):
    for name in "abc":
        for part in ("images", "masks"):
            (tmp_path / "set" / name / part).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / f"set/{name}/images/0.png")
        Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / f"set/{name}/masks/0.png")
    data = DataConfig(format="mask_folder", path=str(tmp_path / "set"), validation_images=1)
    for split in ("train", "validation"):
        plain = load_split(data, split)
        lazy = load_split(replace(data, prepared=str(tmp_path / "shards")), split)
        assert isinstance(lazy, PreparedRecords)
        assert lazy.categories == ("nucleus",)
        for a, b in zip(lazy, plain, strict=True):
            assert_same(a, b)
