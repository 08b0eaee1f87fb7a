"""The verbs of ``python -m vaebm``: one file each, with ``main(arguments) -> exit code``."""
