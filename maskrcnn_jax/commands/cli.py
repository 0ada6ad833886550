"""`maskrcnn-jax COMMAND ...`: what the package does from the shell."""

import argparse
import importlib
import sys
from collections.abc import Sequence

import maskrcnn_jax
from maskrcnn_jax.errors import UserError, named_packages

# Each command's module in `maskrcnn_jax.commands`, and what the help says of it.
_COMMANDS = {
    "check": "find every fault of a data set, and count what it holds",
    "convert": "turn a Detectron2 model into a bundle",
    "evaluate": "score a trained model, or what any other tool has found",
    "export": "write a model as one file that other programs run: StableHLO, SavedModel, ONNX",
    "models": "list the models that come with the package",
    "predict": "find the objects in images and slides, and write them in the formats that people use",
    "sample": "draw images or a slide, to try everything without any data",
    "train": "train a model from a config",
}
_WITH_CONFIG = ("evaluate", "train")  # whose flags are the fields of a config


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: without the program's name; by default the process's own.

    Returns:
      The exit code: the command's, or 1 after an error, which is told on stderr, or 130 after an
      interrupt. Wrong usage exits with 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    program = " ".join(["maskrcnn-jax", *argv[:1]])
    try:
        with named_packages():
            if argv[:1] and argv[0] in _WITH_CONFIG:
                from maskrcnn_jax.commands import doors

                command = importlib.import_module(f"maskrcnn_jax.commands.{argv[0]}")
                return doors.main(command, [program, *argv[1:]])
            return _run(argv)
    except (UserError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{program}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130


def _run(argv: Sequence[str]) -> int:
    """Runs a command whose options are argparse's; only its own module is imported."""
    parser = argparse.ArgumentParser(prog="maskrcnn-jax", description="Mask R-CNN in JAX and Flax.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {maskrcnn_jax.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in argv[:1]:
            command = importlib.import_module(f"maskrcnn_jax.commands.{name}")
            command.add_arguments(subparser)
    arguments = parser.parse_args(argv)
    return command.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
