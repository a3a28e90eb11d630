"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what (a file, an argument), what is wrong with it, and what to do.
    The command line prints it without a traceback and exits with code 2.
    """


class MissingScale(InputError):
    """A depth file of whole numbers whose unit nobody stated; callers add how it is stated with them."""
