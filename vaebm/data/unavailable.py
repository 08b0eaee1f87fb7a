"""The error that means "these images cannot be had here", as opposed to "these images are bad"."""

from vaebm.errors import UserError


class DataUnavailable(UserError):  # noqa: N818 (it names a state of the data, as the suites print it)
    """A data set is neither in the data root, nor bundled, nor downloadable now; the one line says how to get it.

    Suites may catch it, leave that cell empty and print the line; bad data stays a plain ``UserError``.
    """
