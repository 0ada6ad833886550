"""Grouped, dilated, deformable and normed layers, unaligned RoIAlign and GIoU, against torch's operators."""

from pathlib import Path

from layer_parity import measure


def test_layers_agree_with_torchs():
    rows = measure(Path(__file__).parent / "torchvision" / "layers.npz")
    over = [f"{row.what}: {row.difference:.3g} (allowed {row.allowed:.3g})" for row in rows if not row.ok]
    assert len(rows) == 10 and not over, "\n".join(over)
