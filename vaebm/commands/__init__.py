"""The verbs of ``python -m vaebm``: one file each, with ``main(arguments) -> exit code``."""

from collections.abc import Callable
from typing import TypeVar

from vaebm.parallel import together

Made = TypeVar("Made")


def in_each(work: Callable[[], Made]) -> Made:
    """Call ``work`` in every process and return what this one's call made, which may be what cannot be sent, as a model.

    Raises:
        UserError: it was raised in any process: none waits for one that has given up, and the first one says why.
    """
    made: list[Made] = []
    together(lambda: made.append(work()))
    return made[0]
