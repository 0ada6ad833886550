"""The dock widget: which layer, which model, find, cancel."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pandas as pd
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, FloatSlider, SpinBox
from napari import Viewer
from napari.layers import Image, Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.interop.bundle import read_config
from maskrcnn_jax.napari_plugin.finding import Cancelled, Finder, Objects, visible_pixels
from maskrcnn_jax.zoo import DEFAULT, models, resolve

_OWN = "a bundle of my own"


class FindObjects(QWidget):
    """Runs a model on an image layer in a thread, and adds what it finds as a layer of labels."""

    _progressed = Signal(int, int)  # from the worker's thread to this one

    def __init__(self, napari_viewer: Viewer):
        """Shows the options; nothing is loaded yet.

        Args:
          napari_viewer: by this name napari knows that a widget wants its viewer.
        """
        super().__init__()
        self._viewer, self._finder = napari_viewer, Finder()
        self._cancelled = threading.Event()
        self._progressed.connect(self._show_progress)
        self.image = ComboBox(label="image", choices=self._images)
        self.model = ComboBox(label="model", choices=[*(m.name for m in models()), _OWN], value=DEFAULT)
        self.bundle = FileEdit(label="bundle", mode="d")
        self.min_score = FloatSlider(label="least score", min=0, max=1, step=0.05)
        self.tile = SpinBox(label="tile (px, 0: if large)", min=0, max=8192, step=256, value=0)
        self.outlines = CheckBox(label="outlines", value=True)
        options = [self.image, self.model, self.bundle, self.min_score, self.tile, self.outlines]
        form = Container(widgets=options)
        self.find, self.cancel = QPushButton("Find objects"), QPushButton("Cancel")
        self.bar, self.status = QProgressBar(), QLabel()
        self.status.setWordWrap(True)
        buttons = QHBoxLayout()
        buttons.addWidget(self.find)
        buttons.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.addWidget(form.native)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addStretch()
        self.find.clicked.connect(self._start)
        self.cancel.clicked.connect(self._cancel)
        self.model.changed.connect(self._follow_model)
        self.bundle.changed.connect(self._follow_model)
        self._follow_layers()
        self._follow_model()
        self._show_running(False)

    def _follow_layers(self) -> None:
        """The list of images is that of the viewer, the active one chosen."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(lambda: self.image.reset_choices())
        self._viewer.layers.selection.events.active.connect(lambda event: self._choose(event.value))
        self._choose(self._viewer.layers.selection.active)

    def _choose(self, layer: Layer | None) -> None:
        self.image.reset_choices()
        if isinstance(layer, Image):
            self.image.value = layer

    def _images(self, _: object = None) -> list[Image]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def _start(self) -> None:
        """Hands the plane in view to a thread."""
        layer = self.image.value
        try:
            if layer is None:
                raise UserError("there is no image: open one first")
            pixels = self._pixels(layer)
        except UserError as error:
            self._show_error(error)
            return
        self._cancelled.clear()
        self._show_running(True)
        worker = create_worker(
            self._finder,
            pixels,
            self._model(),
            min_score=self.min_score.value,
            tile=self.tile.value,
            progress=self._progressed.emit,
            cancelled=self._cancelled,
            _start_thread=False,
            _ignore_errors=True,
        )
        worker.returned.connect(lambda objects: self._add(layer, objects))
        worker.errored.connect(self._show_error)
        worker.finished.connect(lambda: self._show_running(False))
        worker.start()

    def _pixels(self, layer: Image):
        place = [round(i) for i in layer.world_to_data(self._viewer.dims.point)]
        return visible_pixels(
            layer.data,
            rgb=layer.rgb,
            multiscale=layer.multiscale,
            place=place,
            limits=tuple(layer.contrast_limits),
        )

    def _add(self, layer: Image, objects: Objects) -> None:
        """The labels lie where the plane lies, whatever the layer's units."""
        if self._cancelled.is_set():
            return self.status.setText("cancelled")
        options = {
            "features": pd.DataFrame(objects.features),
            "scale": layer.scale[-2:],
            "translate": layer.translate[-2:],
        }
        name = f"{layer.name} objects"
        self._viewer.add_labels(objects.labels, name=name, opacity=0.4, **options)
        if self.outlines.value:
            lines = self._viewer.add_labels(objects.labels, name=f"{name}, outlines", opacity=1, **options)
            lines.contour = 1
        self.status.setText(f"{len(objects):,} objects")

    def _cancel(self) -> None:
        self._cancelled.set()
        self.status.setText("stops after this tile ...")

    def _show_progress(self, done: int, count: int) -> None:
        # One step says nothing: the bar is busy until it is done.
        self.bar.setRange(0, 0 if count == 1 and not done else count)
        self.bar.setValue(done)

    def _show_error(self, error: Exception) -> None:
        if isinstance(error, Cancelled):
            return self.status.setText("cancelled")
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.status.setText(text)
        show_error(text)

    def _model(self) -> Path | str:
        return Path(self.bundle.value) if self.model.value == _OWN else self.model.value

    def _follow_model(self) -> None:
        """The least score starts where the model's own lies."""
        own = self.model.value == _OWN
        self.bundle.visible = own
        # What is wrong with a bundle is said when it is to be used.
        with contextlib.suppress(UserError):
            folder = self._model() if own else resolve(self.model.value)
            self.min_score.value = read_config(folder).detection.min_score

    def _show_running(self, running: bool) -> None:
        self.find.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)
        if running:
            self.status.setText("looks for objects; the first image of a size takes longer ...")
