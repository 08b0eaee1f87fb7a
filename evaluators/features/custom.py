"""The user's own features: ``module:callable`` with ``callable(images uint8 (n, H, W, C)) -> (n, D) array``.

The callable gets at most ``batch_size`` images at a time and chooses its own device. If it has an attribute ``fingerprint`` (JSON-able: all
that decides its numbers, such as the hash of its weights), its features are kept between runs. Without one they are not, since nobody can
tell when they change.
"""

import hashlib
import inspect
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evaluators.features.extractor import Heads, Options, check_images
from evaluators.protocols import Images
from vaebm.data.messages import reason
from vaebm.errors import UserError


def load_own(spec: str, options: Options) -> "OwnExtractor":
    """Import the callable.

    Raises:
        UserError: it cannot be imported or called, or an option has no effect on it.
    """
    options.refuse(spec, "weights", "resize", "dtype")
    module_name, _, attribute = spec.partition(":")
    try:
        module = import_module(module_name)
        function = getattr(module, attribute)
    except ModuleNotFoundError as error:
        raise UserError(f"{spec}: {reason(error)}; put the module's folder into PYTHONPATH") from None
    except (AttributeError, ValueError, TypeError, ImportError, SyntaxError) as error:
        raise UserError(f"{spec}: {reason(error)}; needed module:callable") from None
    if not callable(function):
        raise UserError(f"{spec}: found {type(function).__name__}, needed a callable (n, H, W, C) -> (n, D)")
    # What memory the user's function takes is the user's to know.
    return OwnExtractor(spec, function, Options.batch_size if options.batch_size == "auto" else options.batch_size)


class OwnExtractor:
    """An ``Extractor`` (see there) around the user's function; its name is ``module.callable``."""

    heads = ("features",)

    def __init__(self, spec: str, function: Callable[[Images], ArrayLike], batch_size: int | str) -> None:
        self.spec, self.function, self.batch_size = spec, function, int(batch_size)
        self.name = spec.replace(":", ".")
        self.dim: int | None = None
        self._one_at_a_time = threading.Lock()
        source = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isfunction(function) else None
        code = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
        given = getattr(function, "fingerprint", None)
        self.protocol: dict[str, Any] = {"features": self.name, "source": code[:8], "fingerprint": given}
        self.fingerprint: dict[str, Any] | None = None
        if given is not None:
            self.fingerprint = {**self.protocol, "source": code, "batch_size": batch_size}

    def extract(self, images: Images) -> Heads:
        """See ``Extractor``; raises UserError, naming the callable, for whatever it does wrong. Threads wait for each other."""
        check_images(images, self.name)
        starts = range(0, len(images), self.batch_size)
        with self._one_at_a_time:
            return {"features": np.concatenate([self._features(images[s : s + self.batch_size]) for s in starts])}

    def _features(self, images: Images) -> np.ndarray:
        try:
            features = np.asarray(self.function(images))
        except Exception as error:  # whatever the user's code raises is the user's to read, in one line
            raise UserError(f"{self.spec}: raised {type(error).__name__}: {reason(error)}") from error
        needed = f"needed real numbers ({len(images)}, {'D' if self.dim is None else self.dim})"
        if (
            features.dtype.kind not in "fiu"
            or features.ndim != 2
            or len(features) != len(images)
            or 0 in features.shape
        ):
            raise UserError(f"{self.spec}: returned {features.dtype} {features.shape}, {needed}")
        if self.dim not in (None, features.shape[1]):
            raise UserError(f"{self.spec}: returned {features.dtype} {features.shape}, {needed}")
        self.dim = features.shape[1]
        return features.astype(np.float32)
