"""Where things are kept between runs."""

import os
from pathlib import Path


def cache_folder(chosen: str) -> Path | None:
    """Return the folder that --cache names, else that of $VAEBM_CACHE, else the user's cache folder; ``None`` for "none"."""
    if chosen == "none":
        return None
    import pooch

    return Path(chosen) if chosen else Path(os.environ.get("VAEBM_CACHE") or pooch.os_cache("vaebm"))
