"""Joins data sets of nuclei into one, in two parts that share no slide: what `configs/nuclei.py` trains on.

    python benchmarks/nuclei_sets.py --out runs/data/nuclei --share 0.15 FOLDER FOLDER ...

Each FOLDER is a data set of mask folders or of label images. Written are `train` and `validation` under
--out, as label images, their names beginning with what they show: `fluorescence_` (grey on black), `grey_`
(grey, bright field) and `colour_`. Tiles of one mosaic, whose facing edges agree, stay together. Mosaics are
shared out look by look (kind and size), so that each look with two mosaics or more is in both parts.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maskrcnn_jax.data.entries import read_records
from maskrcnn_jax.data.readers.formats import list_entries
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.images.intensity import is_grey

_SAME_EDGE = 0.88  # correlation of facing edges above which two tiles are neighbours in a mosaic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.15, help="of the images that validate")
    arguments = parser.parse_args()
    records = [record for folder in arguments.folders for record in read(folder)]
    mosaics = find_mosaics(records)
    held_out = hold_out(records, mosaics, arguments.share)
    for part in ("train", "validation"):
        chosen = [r for r, out in zip(records, held_out, strict=True) if out == (part == "validation")]
        for record in chosen:
            write(record, arguments.out / part)
        kinds = [kind(record) for record in chosen]
        counts = ", ".join(f"{kinds.count(k)} {k}" for k in sorted(set(kinds)))
        print(f"{part}: {len(chosen)} images ({counts}), {sum(len(r.classes) for r in chosen)} nuclei")
    print(f"{len(set(mosaics))} mosaics of {len(records)} images")


def read(folder: Path) -> list[Record]:
    form = "labels" if (folder / "masks").is_dir() else "mask_folder"
    return read_records(list_entries(form, folder).entries)


def kind(record: Record) -> str:
    if not is_grey(record.image):
        return "colour"
    return "fluorescence" if np.median(record.image) < 100 else "grey"


def find_mosaics(records: list[Record]) -> np.ndarray:
    """The number of the mosaic that each record belongs to; most are alone in theirs."""
    links = []
    look = [(kind(record), record.size) for record in records]
    for this in sorted(set(look)):
        members = [n for n, other in enumerate(look) if other == this]
        grey = np.stack([records[n].image.mean(axis=2) for n in members])
        for ends, starts in ((grey[:, :, -1], grey[:, :, 0]), (grey[:, -1], grey[:, 0])):
            agree = _standard(ends) @ _standard(starts).T > _SAME_EDGE
            links += [(members[a], members[b]) for a, b in np.argwhere(agree) if a != b]
    rows, columns = np.array(links).T if links else np.zeros((2, 0), int)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(records),) * 2)
    return connected_components(graph, directed=False)[1]


def _standard(edges: np.ndarray) -> np.ndarray:
    """Edges with mean 0 and length 1; 0 where nothing is to be seen on them."""
    edges = edges - edges.mean(axis=1, keepdims=True)
    length = np.linalg.norm(edges, axis=1, keepdims=True)
    return np.where(edges.std(axis=1, keepdims=True) > 3, edges / np.maximum(length, 1e-6), 0)


def hold_out(records: list[Record], mosaics: np.ndarray, share: float) -> np.ndarray:
    """Which records validate: of each look whole mosaics, the smallest first, drawn with a fixed seed."""
    random = np.random.default_rng(0)
    chosen = np.zeros(len(records), bool)
    looks = [(kind(record), record.size) for record in records]
    key = dict(zip(mosaics.tolist(), looks, strict=True))
    for look, group in itertools.groupby(sorted(key, key=lambda m: key[m]), key=lambda m: key[m]):
        group = random.permutation(list(group))
        sizes = np.array([(mosaics == m).sum() for m in group])
        order = np.argsort(sizes, kind="stable")
        wanted = round(share * looks.count(look)) if len(group) > 1 else 0
        wanted = max(wanted, 1) if len(group) > 1 else 0
        for mosaic in group[order][np.cumsum(sizes[order]) <= wanted]:
            chosen |= mosaics == mosaic
    return chosen


def write(record: Record, folder: Path) -> None:
    labels = np.zeros(record.size, np.uint16)
    for n in sorted(range(len(record.classes)), key=lambda n: -record.mask(n).sum()):
        labels[record.mask(n)] = n + 1  # where masks touch, the smaller is on top
    for name, pixels in (("images", record.image), ("masks", labels)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{kind(record)}_{record.name[:16]}.png")


if __name__ == "__main__":
    main()
