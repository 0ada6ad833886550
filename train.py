"""`python train.py` is `maskrcnn-jax train`."""

import sys

from maskrcnn_jax.commands import doors, train

if __name__ == "__main__":
    sys.exit(doors.main(train))
