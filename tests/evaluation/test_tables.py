"""What people read: averages, and a row an image."""

import io
import math

from rich.console import Console

from maskrcnn_jax.evaluation.evaluator import Evaluation, ImageScore
from maskrcnn_jax.evaluation.tables import image_rows, images_table, nuclei_table, table


def cells_of(view):
    console = Console(width=160, file=io.StringIO())
    console.print(view)
    lines = [line.split("│")[1:-1] for line in console.file.getvalue().splitlines() if "│" in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_table_shows_boxes_and_masks_at_every_limit():
    metrics = {
        f"{kind}/{name}@{m}": m / 4000
        for kind in ("bbox", "segm")
        for name in ("AP", "AP50")
        for m in (100, 2000)
    }
    metrics["segm/AP75@100"] = 0.125
    cells = cells_of(table(metrics))
    assert cells == [
        ["boxes", "0.025", "0.025", "–", "0.500", "0.500", "–"],
        ["masks", "0.025", "0.025", "0.125", "0.500", "0.500", "–"],
    ]


def test_nuclei_table_shows_both_averages():
    metrics = {"nuclei/AJI": 0.5, "nuclei/PQ": float("nan"), "nuclei_micro/AJI": 0.25, "nuclei_micro/PQ": 1.0}
    cells = cells_of(nuclei_table(metrics | {"segm/AP@100": 0.1}))
    assert cells == [["AJI", "0.500", "0.250"], ["PQ", "–", "1.000"]]


def evaluation(*qualities, seconds=None):
    """Images `a`, `b`, ... of 10 and 9 objects with a PQ each; the other metrics are 0.25."""
    names = ("AJI", "Dice", "SQ", "F1@0.5")
    images = [
        ImageScore(n, chr(97 + n), 10, 9, dict.fromkeys(names, 0.25) | {"PQ": quality}, seconds)
        for n, quality in enumerate(qualities)
    ]
    metrics = {f"{kind}/{name}": 0.5 for kind in ("nuclei", "nuclei_micro") for name in (*names, "PQ")}
    return Evaluation(metrics, images, None, 0.5, [], {})


def test_images_table_has_a_row_an_image_and_both_averages():
    cells = cells_of(images_table(evaluation(0.125, math.nan)))
    assert cells == [
        ["a", "10", "9", "0.250", "0.250", "0.125", "0.250"],
        ["b", "10", "9", "0.250", "0.250", "–", "0.250"],
        ["mean of images", "", "", *["0.500"] * 4],
        ["all as one", "20", "18", *["0.500"] * 4],
    ]


def test_images_table_of_many_images_shows_the_worst():
    found = evaluation(math.nan, *(1 - n / 100 for n in range(25)))
    cells = cells_of(images_table(found))
    assert len(cells) == 24 + 2
    assert [row[0] for row in cells[:2]] == [chr(97 + 25), chr(97 + 24)]
    assert "a" not in [row[0] for row in cells], "what has no PQ is not bad"
    console = Console(width=160, file=io.StringIO())
    console.print(images_table(found))
    assert "24 of 26 images, those of the lowest PQ" in " ".join(console.file.getvalue().split())


def test_image_rows_have_all_metrics_and_seconds_if_they_were_taken():
    (row,) = image_rows(evaluation(0.5, seconds=2.0))
    assert list(row) == [
        "image_id",
        "image",
        "objects",
        "found",
        "AJI",
        "Dice",
        "SQ",
        "F1@0.5",
        "PQ",
        "seconds",
    ]
    assert (row["image"], row["found"], row["PQ"], row["seconds"]) == ("a", 9, 0.5, 2.0)
    assert all("seconds" not in row for row in image_rows(evaluation(0.5, 0.5)))
    assert image_rows(evaluation()) == []
