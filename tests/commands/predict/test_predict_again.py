"""What `maskrcnn-jax predict` never loses: results of others, and what a stopped or failed run has done."""

import errno

import numpy as np
import pytest
from written_files import SUFFIXES, check_consistency, files

from maskrcnn_jax.outputs import folder
from maskrcnn_jax.prediction import journal

# pycocotools 2.0.11 decodes with a call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_results_that_are_there_stay(model, images, run, tmp_path, capsys):
    images("a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.csv").write_text("precious")
    assert run(images.folder) == 1
    assert "a.csv" in (message := capsys.readouterr().err) and "--overwrite" in message
    assert not model.shapes and files(tmp_path / "out") == ["a.csv"]
    assert run(images.folder, "--formats", "labels") == 0  # does not touch it
    assert (tmp_path / "out" / "a.csv").read_text() == "precious"
    assert run(images.folder, "--overwrite") == 0
    check_consistency(tmp_path / "out", "a", whole=True)


def test_images_are_never_overwritten(model, images, run, capsys):
    images("a.png")
    images("a_overlay.png")
    before = (images.folder / "a_overlay.png").read_bytes()
    assert run(images.folder, "--overwrite", out=images.folder) == 1
    assert "would overwrite the image" in capsys.readouterr().err and not model.shapes
    assert (images.folder / "a_overlay.png").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_found_first(model, images, run, tmp_path, capsys):
    images("a.png")
    (tmp_path / "file").touch()
    assert run(images.folder, out=tmp_path / "file" / "out") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err and not model.shapes


class TestGoingOn:
    """A run that was stopped, or in which images failed: the same command does only what is left."""

    @pytest.fixture
    def stopped(self, model, images, run, monkeypatch):
        """After the first of three images."""
        for name in ("a.png", "b.png", "c.png"):
            images(name)
        whole = model.batch

        def stops(pictures, **more):
            if len(model.shapes) == 1:
                raise KeyboardInterrupt
            return whole(pictures, **more)

        with monkeypatch.context() as patch:
            patch.setattr(model, "batch", stops)
            assert run(images.folder) == 130

    def test_the_same_command(self, stopped, model, images, run, tmp_path, capsys):
        before = (tmp_path / "out" / "a.csv").stat().st_mtime_ns
        assert not (tmp_path / "out" / "coco_results.json").exists()
        assert run(images.folder) == 0
        assert len(model.shapes) == 3 and (tmp_path / "out" / "a.csv").stat().st_mtime_ns == before
        said = capsys.readouterr()
        assert "3 of 3" in said.out and said.out.count("before") == 1
        for name in "abc":
            assert check_consistency(tmp_path / "out", name, whole=True) > 5
        assert len(files(tmp_path / "out")) == 3 * len(SUFFIXES) + 2

    @pytest.mark.parametrize("change", ["image", "result", "note"])
    def test_what_has_changed_is_done_again(self, stopped, model, images, run, tmp_path, change):
        if change == "image":
            images("a.png", [np.s_[1:5, 1:5]])
        elif change == "result":
            (tmp_path / "out" / "a.csv").unlink()
        else:
            (tmp_path / "out" / "unfinished" / "a.done").write_text("{")
        assert run(images.folder) == 0 and len(model.shapes) == 4
        for name in "abc":
            check_consistency(tmp_path / "out", name, whole=True)

    def test_other_options(self, stopped, model, images, run, tmp_path, capsys):
        assert run(images.folder, score="0.07") == 1
        assert "min_score: 0.0 then, 0.07 now" in capsys.readouterr().err
        assert run(images.folder, "--overwrite", score="0.07") == 0 and len(model.shapes) == 4
        for name in "abc":
            check_consistency(tmp_path / "out", name, whole=True)

    def test_results_of_other_runs_stay(self, stopped, model, images, run, tmp_path, capsys):
        images("d.png")
        (tmp_path / "out" / "d.csv").write_text("precious")
        assert run(images.folder) == 1 and "d.csv" in capsys.readouterr().err
        assert (tmp_path / "out" / "d.csv").read_text() == "precious"

    def test_a_folder_of_that_name_stays(self, model, images, run, tmp_path, capsys):
        images("a.png")
        (tmp_path / "out" / "unfinished").mkdir(parents=True)
        (tmp_path / "out" / "unfinished" / "symphony.txt").touch()
        assert run(images.folder, "--overwrite") == 1 and "move what is in it away" in capsys.readouterr().err
        assert files(tmp_path / "out") == ["unfinished/symphony.txt"]

    def test_images_that_failed(self, model, images, run, tmp_path, capsys):
        images("a.png")
        (images.folder / "b.png").write_text("no image")
        assert run(images.folder) == 1
        assert "the same command tries only those again that failed" in capsys.readouterr().out
        images("b.png")
        assert run(images.folder) == 0 and len(model.shapes) == 2
        for name in "ab":
            check_consistency(tmp_path / "out", name, whole=True)
        assert len(files(tmp_path / "out")) == 2 * len(SUFFIXES) + 2


class TestFullDisk:
    """Nothing of an image that could not be written stays, and the same command goes on."""

    @pytest.fixture
    def full(self, monkeypatch):
        """Lets so many images of labels be written."""

        def fill(count):
            room = iter(range(count))

            def write(path, result):
                if next(room, None) is None:
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                return whole(path, result)

            whole = folder.write_labels
            monkeypatch.setattr(folder, "write_labels", write)
            return lambda: monkeypatch.setattr(folder, "write_labels", whole)

        return fill

    @pytest.mark.parametrize("count", [0, 1])
    def test_while_results_are_written(self, model, images, run, tmp_path, full, capsys, count):
        for name in ("a.png", "b.png"):
            images(name)
        formats = ("--formats", "csv,labels,coco")
        empty = full(count)
        assert run(images.folder, *formats) == 1
        assert "No space left" in capsys.readouterr().err
        own = [name for name in files(tmp_path / "out") if not name.startswith("unfinished/")]
        assert [name for name in own if name.startswith("b")] == [] and len(own) == 4 * count
        empty()
        assert run(images.folder, *formats) == 0
        assert len(model.shapes) == 4 - count and len(files(tmp_path / "out")) == 6

    def test_while_the_journal_is_written(self, model, images, run, tmp_path, monkeypatch, capsys):
        images("a.png")
        with monkeypatch.context() as patch:
            patch.setattr(journal, "write_json_lines", lambda *_: stop())
            assert run(images.folder) == 1 and files(tmp_path / "out") == []
        assert run(images.folder) == 0
        check_consistency(tmp_path / "out", "a", whole=True)

    def test_tiles_stay_where_all_images_failed(self, model, images, run, tmp_path, full):
        images("a.png", size=(90, 200))
        empty = full(0)
        assert run(images.folder, "--tile", "64") == 1
        assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"unfinished"}
        before = len(model.shapes)
        empty()
        assert run(images.folder, "--tile", "64") == 0 and len(model.shapes) == before
        check_consistency(tmp_path / "out", "a", whole=True)


def stop():
    raise OSError(errno.ENOSPC, "No space left on device")
