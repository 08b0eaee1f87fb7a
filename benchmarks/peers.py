"""The packages that users have, to compare with."""

from importlib import import_module
from typing import Any

from vaebm.errors import UserError

PEERS = {
    "cleanfid": "clean-fid",
    "torch_fidelity": "torch-fidelity",
    "pytorch_fid": "pytorch-fid",
    "prdc": "prdc",
}


def peer(module: str) -> Any:
    """Import a module of another package. Raises: UserError, which names the extra, where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in PEERS:
            raise
        package = PEERS[module.split(".")[0]]
        raise UserError(f"{package}: not installed, needed to compare with; pip install -e .[peers]") from None
