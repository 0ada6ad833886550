"""What is for people to read: one class that every door catches and shows as a message."""


class UserError(ValueError):
    """Something that the user can put right: the message says what was found, where, and what to do.

    All that this package raises about its input derives from it. Any other exception is a fault of the
    package or of a library, and ends with its traceback.
    """
