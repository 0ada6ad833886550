"""`python evaluate.py` is `maskrcnn-jax evaluate`."""

import sys

from maskrcnn_jax.commands import doors, evaluate

if __name__ == "__main__":
    sys.exit(doors.main(evaluate))
