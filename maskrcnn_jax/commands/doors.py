"""What `train` and `evaluate` share: a config's flags, a quiet start, each mistake as one message."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags, logging
from ml_collections import config_flags

import maskrcnn_jax
from maskrcnn_jax.errors import UserError, named_packages
from maskrcnn_jax.plain_values import nearest


def main(command: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Parses the flags and runs a command.

    What is for people to read, or comes from the operating system, ends as one message on stderr; the rest,
    ours to mend, as traceback.

    Args:
      command: has `define(values, argv)`, which defines its flags, and `run(values)`.
      argv: the program's name and its arguments; by default the process's own.

    Returns:
      The exit code: 2 where flags are wrong, 130 after an interrupt, 1 after any other error.
    """
    # Before TensorFlow is first imported, which would greet with warnings.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.set_verbosity(logging.WARNING)
    argv = list(sys.argv if argv is None else argv)
    program = Path(argv[0]).name
    try:
        values = _parse(command, argv)
        if values is not None:
            with named_packages():
                command.run(values)
        return 0
    except _Misuse as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        message = f"{interrupt or 'interrupted'}; the same command goes on from the last checkpoint"
        print(f"{program}: {message}", file=sys.stderr)
        return 130


def define_config(values: flags.FlagValues, argv: Sequence[str], *, default: str | None = None) -> None:
    """Defines --config, the file of an experiment, and a --config.FIELD for every field in it."""
    default = _config_file(default) if default else None
    config_flags.DEFINE_config_file(
        "config",
        default,
        "An experiment: the name of one that comes with the package, or a file.",
        lock_config=True,
        flag_values=values,
        sys_argv=argv,
    )


def configs_folder() -> Path:
    """Where the package's experiments lie: inside the installed package, or beside it in a checkout."""
    package = Path(maskrcnn_jax.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def keep_tensorflow_off_gpus() -> None:
    """To be called by what uses JAX, before TensorFlow starts and takes the memory that JAX needs."""
    from maskrcnn_jax.data.pipeline import hide_gpus_from_tensorflow  # late, as this imports TensorFlow

    hide_gpus_from_tensorflow()


class _Misuse(Exception):
    """Flags that make no sense."""


def _parse(command: ModuleType, argv: list[str]) -> flags.FlagValues | None:
    """The command's flags with their values; None where only help was asked for."""
    values = flags.FlagValues()
    try:
        argv = _with_config_files(argv)
        command.define(values, argv)
        if {"-h", "--help", "-help"} & set(argv[1:]):
            print(f"{command.__doc__}\n{values.get_help()}")
            return None
        rest = values(argv)
    except flags.Error as error:
        raise _Misuse(f"{error}\nPass --help to see the flags.") from error
    except (AttributeError, KeyError) as error:  # The config is parsed here, with all --config.FIELD.
        raise _Misuse(_unknown_field(error)) from error
    if len(rest) > 1:
        raise _Misuse(f"unexpected arguments: {' '.join(rest[1:])}\nPass --help to see the flags.")
    return values


def _with_config_files(argv: Sequence[str]) -> list[str]:
    """The arguments with the files of experiments in place of their names."""
    changed = list(argv)
    for n, argument in enumerate(argv[1:], 1):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config") and equals:
            changed[n] = f"{flag}={_config_file(value)}"
        elif argv[n - 1] in ("--config", "-config"):
            changed[n] = _config_file(argument)
    return changed


def _config_file(name: str) -> str:
    """`nuclei_small:scratch` as the path of its file with `:scratch`; a path stays as it is."""
    stem, colon, argument = name.partition(":")
    if stem.endswith(".py") or "/" in stem or os.sep in stem:
        return name
    known = sorted(path.stem for path in configs_folder().glob("*.py"))
    if stem not in known:
        raise _Misuse(
            f"--config {stem}: no experiment of this name{nearest(stem, known)}; "
            f"there are {', '.join(known)}, or give the path of a file"
        )
    return f"{configs_folder() / stem}.py{colon}{argument}"


def _unknown_field(error: AttributeError | KeyError) -> str:
    """What ml_collections means by these errors: a config has no such field."""
    cause = error.args[0]
    return f"the config has no field {cause.args[0] if isinstance(cause, KeyError) else cause}"
