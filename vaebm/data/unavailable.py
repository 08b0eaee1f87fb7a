"""The error that means "these images cannot be had here", as opposed to "these images are bad"."""

from vaebm.errors import UserError


class DataUnavailable(UserError):
    """A data set is neither in the data root, nor bundled, nor downloadable now; the one line says how to get it.

    Suites may catch it, leave that cell empty and print the line; bad data stays a plain ``UserError``.
    """
