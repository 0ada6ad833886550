"""The house in order, read from the imports: no room imports one above it, no module itself in a circle."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "maskrcnn_jax"  # as a module: names what is public, and loads it on first use
# From top to bottom: rooms, and on the ground floor single modules.
FLOORS = (
    {"train", "evaluate"},
    {"commands", "napari_plugin"},
    {"zoo"},
    {"training", "prediction", "outputs"},
    {"interop", "evaluation"},
    {"models", "data"},
    {"experiment"},  # a module: what a config's data section says of images is an images.choice
    {"ops", "masks", "images", "unpickling"},
    {
        *("structures", "config", "config_parts", "ranges", "plain_values"),
        *("documents", "compilations", "errors", "files"),
    },
)
# From room to room on one floor. On the ground floor only circles are forbidden.
NEIGHBOURS = {
    ("prediction", "outputs"),  # a run over many images writes each as soon as it is found
}


@cache
def modules() -> dict[str, ast.Module]:
    """All modules of the package and the doors at the root, by their dotted names."""
    found = {}
    for path in [*ROOT.joinpath(PACKAGE).rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """The modules that these statements import, of this project and of others."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} imports relatively"
            # `from room import module` imports the module; else names are taken from a module.
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below & modules().keys() or {node.module}
    return found


def at_start(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: none in functions, none for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from at_start(node)


def imports() -> dict[str, set[str]]:
    """The modules of this project that each imports, at its start, in functions or for types alone."""
    graph = {name: imported(ast.walk(tree)) & modules().keys() for name, tree in modules().items()}
    del graph[PACKAGE]
    return {name: others - {PACKAGE} for name, others in graph.items()}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE else parts[0]


def floor(module: str) -> int:
    """Counted from the top."""
    floors = [number for number, rooms in enumerate(FLOORS) if room(module) in rooms]
    assert floors, f"{module} lies in no room of FLOORS"
    return floors[0]


def may_import(module: str, other: str) -> bool:
    if floor(module) == floor(other):
        same = room(module) == room(other) or floor(module) == len(FLOORS) - 1
        return same or (room(module), room(other)) in NEIGHBOURS
    return floor(module) < floor(other)


def test_every_import_runs_downwards():
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if not may_import(module, other)
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_module_imports_itself_in_a_circle():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_every_room_is_there():
    assert {room(module) for module in imports()} == set().union(*FLOORS)


@pytest.mark.parametrize(
    ("rooms", "banned"),
    [
        ({"data", "evaluation", "masks", "images"}, {"jax", "flax"}),
        ({"ops", "models", "interop", "prediction", "outputs", "evaluation"}, {"tensorflow"}),
        # A first prediction does not wait for what few images need.
        ({"ops", "models", "interop", "prediction", "masks", "images"}, {"matplotlib", "scipy"}),
    ],
    ids=["no JAX", "no TensorFlow", "no Matplotlib, no SciPy"],
)
def test_what_a_room_starts_without(rooms, banned):
    """None of its modules imports the package when it starts, nor does any that it imports then."""
    wrong = []
    for first in (module for module in imports() if room(module) in rooms):
        ways, seen = [(first,)], {first, PACKAGE}
        while ways:
            way = ways.pop()
            for other in imported(at_start(modules()[way[-1]])) - seen:
                seen.add(other)
                if other.partition(".")[0] in banned:
                    wrong.append(" imports ".join((*way, other)))
                elif other in modules():
                    ways.append((*way, other))
    assert not wrong, "\n".join(wrong)
