"""Other libraries' exceptions in one line."""


def reason(error: Exception) -> str:
    """What ``error`` says, on one line and not longer than one can read; its class when it says nothing."""
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
