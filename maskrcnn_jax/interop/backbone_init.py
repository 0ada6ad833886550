"""Puts pretrained weights into a model, and says what was taken and what was not."""

import re
from dataclasses import dataclass

from maskrcnn_jax.interop.trees import Flat, Tree, flatten, nest

_HOME = re.compile(r"backbone/|roi_heads/res\d/")
_GROUP_NORM = "group norm here, batch norm in the file"
_BATCH_NORM = "batch norm here, group norm in the file"
_ABSENT = "not in the model"
_OFFSETS = "offsets of a deformable convolution, which begin at zero"
_PART = "other tensors of this stage do not fit"
_LAYER = "the rest of this layer does not fit"
_STAGES = ("stem", "res2", "res3", "res4", "res5")


@dataclass(frozen=True)
class Report:
    """What an initialisation did.

    Attributes:
      loaded: parameter paths that took their values from the file.
      missing: (path, reason) of parameters that were looked for and keep their fresh values.
      unexpected: (path, reason) of tensors of the file that found no place.
    """

    loaded: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    unexpected: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """A line of counts, one of the loaded parts, and one for each part and reason of the rest."""
        rest = [(path, f"kept as initialised: {reason}") for path, reason in self.missing]
        # What is unused for another reason has a parameter that was kept for the same one.
        rest += [(path, f"unused: {reason}") for path, reason in self.unexpected if reason == _ABSENT]
        groups: dict[tuple[str, str], list[str]] = {}
        for path, what in sorted(rest, key=lambda entry: _order(entry[0])):
            groups.setdefault((_part(path), what), []).append(path)
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.missing)} kept, {len(self.unexpected)} unused"
        ]
        if self.loaded:
            lines.append(f"  loaded: {', '.join(dict.fromkeys(map(_part, sorted(self.loaded, key=_order))))}")
        lines += [
            f"  {part}: {len(paths)} {what} ({', '.join(paths[:2])}{', ...' * (len(paths) > 2)})"
            for (part, what), paths in groups.items()
        ]
        return "\n".join(lines)


def initialize(params: Tree, loaded: Flat) -> tuple[Tree, Report]:
    """Puts loaded tensors into the backbone's stages, and into the stage that is a C4 head.

    A stage is taken only whole: its convolutions were trained with each other. Group norms, which have
    no mean and variance, keep their fresh scale and bias.

    Args:
      params: of a model; not changed.
      loaded: by backbone path, from `load`.

    Returns:
      New parameters (NumPy arrays), and what was and was not loaded.
    """
    target = flatten(params)
    sources = {place: place.split("/", 1)[1] for place in target if _HOME.match(place)}
    reasons = {place: _misfit(place, source, target, loaded) for place, source in sources.items()}
    partial = {
        _stage(sources[place])
        for place, reason in reasons.items()
        if reason not in (None, _GROUP_NORM, _OFFSETS)
    }
    for place, source in sources.items():
        if _stage(source) in partial:
            reasons[place] = reasons[place] or _PART
    taken = {place: sources[place] for place, reason in reasons.items() if reason is None}
    kept = tuple((place, reason) for place, reason in reasons.items() if reason is not None)
    why = {source: reasons[place] for place, source in sources.items()}
    unused = tuple((s, why.get(s, _ABSENT)) for s in loaded if why.get(s, "") is not None)
    values = {place: loaded[source] for place, source in taken.items()}
    return nest(target | values), Report(tuple(taken), kept, unused)


def initialize_layers(params: Tree, loaded: Flat) -> tuple[Tree, Report]:
    """Takes every layer of a whole model that fits by name and shape.

    A layer is taken only whole: a bias without its kernel would only disturb.

    Args:
      params: of a model; not changed.
      loaded: by parameter path.

    Returns:
      New parameters (NumPy arrays), and what was and was not loaded.
    """
    target = flatten(params)
    reasons = {place: _misfit(place, place, target, loaded) for place in target}
    broken = {_layer(place) for place, reason in reasons.items() if reason is not None}
    for place in target:
        if _layer(place) in broken:
            reasons[place] = reasons[place] or _LAYER
    taken = {place: loaded[place] for place, reason in reasons.items() if reason is None}
    kept = tuple((place, reason) for place, reason in reasons.items() if reason is not None)
    unused = tuple((place, reasons.get(place, _ABSENT)) for place in loaded if place not in taken)
    return nest(target | taken), Report(tuple(taken), kept, unused)


def _misfit(place: str, source: str, target: Flat, loaded: Flat) -> str | None:
    """Why the parameter `place` cannot take the value of the file's `source`; None where it can."""
    if source.endswith(("/norm/scale", "/norm/bias")):
        here, there = (f"{path.rsplit('/', 1)[0]}/mean" for path in (place, source))
        if (here in target) != (there in loaded):
            return _BATCH_NORM if here in target else _GROUP_NORM
    if source not in loaded:
        return _OFFSETS if "/offset/" in source else "not in the file"
    if loaded[source].shape != target[place].shape:
        return f"shape {loaded[source].shape} in the file, {target[place].shape} here"
    return None


def _layer(place: str) -> str:
    return place.rpartition("/")[0]


def _stage(path: str) -> str | None:
    """`stem` or `res2` ... `res5`, of a parameter's or a backbone path."""
    return next((part for part in path.split("/") if re.fullmatch(r"stem|res\d", part)), None)


def _part(path: str) -> str:
    """What a report calls the part of the model that a path belongs to: its stage, or its head."""
    return _stage(path) or path.removeprefix("roi_heads/").split("/")[0]


def _order(path: str) -> int:
    """Stages in their order, then everything else."""
    return _STAGES.index(_stage(path)) if _stage(path) in _STAGES else len(_STAGES)
