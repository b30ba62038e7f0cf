"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """A mistake the user can mend. Its text is one line: what was wrong, what was expected, what to do.

    The commands print it and exit with code 2; in Python it is a ValueError like any other.
    """
