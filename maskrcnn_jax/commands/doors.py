"""What the scripts at the root share: a quiet start, and each mistake of the user as one message."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, runs `main` and ends the process.

    The exit code is 2 where flags are wrong, 130 after an interrupt, and 1 after any other error. What
    this package raised, or the operating system, ends as one message; the rest, ours to mend, as traceback.
    """
    # Before TensorFlow is first imported, which would greet with warnings.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        app.run(lambda _: _main(main), flags_parser=_parse)
    except KeyboardInterrupt as interrupt:
        _end(f"{interrupt or 'interrupted'}; the same command goes on from the last checkpoint", 130)
    except Exception as error:
        if not _is_for_people(error):
            raise
        _end(str(error), 1)


def config_flag(default: str | None = None) -> flags.FlagHolder:
    """Defines --config, the file of an experiment, and a --config.FIELD for every field in it."""
    try:
        return config_flags.DEFINE_config_file("config", default, lock_config=True)
    except (AttributeError, KeyError) as error:  # The default is parsed here, with all --config.FIELD.
        _end(_unknown_field(error), 2)


def keep_tensorflow_off_gpus() -> None:
    """To be called by what uses JAX, before TensorFlow starts and takes the memory that JAX needs."""
    from maskrcnn_jax.data.pipeline import hide_gpus_from_tensorflow  # late, as this imports TensorFlow

    hide_gpus_from_tensorflow()


def _main(main: Callable[[], None]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    main()


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _end(f"{error}\nPass --help to see the flags.", 2)
    except (AttributeError, KeyError) as error:
        _end(_unknown_field(error), 2)
    if len(rest) > 1:
        _end(f"unexpected arguments: {' '.join(rest[1:])}\nPass --help to see the flags.", 2)
    return rest


def _unknown_field(error: AttributeError | KeyError) -> str:
    """What ml_collections means by these errors: a config has no such field."""
    cause = error.args[0]
    return f"the config has no field {cause.args[0] if isinstance(cause, KeyError) else cause}"


def _is_for_people(error: Exception) -> bool:
    """Whether the message says all: it was raised by a `raise` in this package, or is about a file."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(place.filename).is_relative_to(Path(__file__).parent)
    return isinstance(error, OSError) or (ours and place.line.startswith("raise"))


def _end(message: str, code: int) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(code)
