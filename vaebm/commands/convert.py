"""``python -m vaebm convert``: native checkpoints to files of the released code, and back."""

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from vaebm.cli import parse
from vaebm.errors import UserError

NVAE_FILE, ENERGY_FILE = "checkpoint.pt", "EBM.pth"


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = ArgumentParser(prog="python -m vaebm convert", exit_on_error=False, allow_abbrev=False)
    native, official = "NAME.safetensors", f"{NVAE_FILE} or {NVAE_FILE},{ENERGY_FILE} of the released code"
    parser.add_argument("source", type=str, metavar="from", help=f"{native} (an nvae or a vaebm), or {official}")
    parser.add_argument("target", type=Path, metavar="to", help=f"a folder for official files, or {native}")
    options = parse(parser, arguments)
    convert = to_official if options.source.endswith(".safetensors") else to_native
    for path in convert(options.source, options.target):
        print(path)
    return 0


def to_official(source: str, folder: Path) -> list[Path]:
    """Write ``checkpoint.pt``, and ``EBM.pth`` of a VAEBM, into ``folder``; return the files.

    Raises:
        UserError: the checkpoint is of another kind, or has settings that the official layout cannot hold; then nothing is written.
    """
    from vaebm.checkpoints import load_checkpoint
    from vaebm.checkpoints.models import build_energy, build_nvae
    from vaebm.checkpoints.official import official_content, write_official

    if folder.suffix == ".safetensors" or folder.is_file():
        raise UserError(f"{folder}: needed a folder for {NVAE_FILE} and {ENERGY_FILE}")
    checkpoint = load_checkpoint(Path(source))
    if checkpoint.kind not in ("nvae", "vaebm"):
        raise UserError(f"{source}: a {checkpoint.kind}; the released code has NVAEs and VAEBMs only")
    nvae, contents = checkpoint, {}
    try:
        if checkpoint.kind == "vaebm":
            nvae = load_checkpoint(checkpoint.path.with_name(checkpoint.card["nvae"]["file"]))
            contents[ENERGY_FILE] = official_content(build_energy(checkpoint, source))
        dataset = nvae.card.get("training", {}).get("args", {}).get("dataset")
        contents[NVAE_FILE] = official_content(build_nvae(nvae, str(nvae.path)), dataset)
    except UserError as error:
        raise error if source in str(error) else UserError(f"{source}: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_official(content, folder / name)
    return [folder / name for name in contents]


def to_native(source: str, target: Path) -> list[Path]:
    """Write official files as ``target`` (.safetensors) and its card; the NVAE of a VAEBM goes beside it as ``NAME-nvae.safetensors``.

    Raises:
        UserError: a file cannot be read, or its weights do not fit what it says of itself.
    """
    from vaebm.checkpoints import Checkpoint, save_checkpoint
    from vaebm.checkpoints.official import read_official_files

    if target.suffix != ".safetensors" or target.is_dir():
        raise UserError(f"{target}: needed a .safetensors file to write")
    checkpoint, nvae = read_official_files([Path(file) for file in source.split(",")])
    target.parent.mkdir(parents=True, exist_ok=True)

    def save(part: Checkpoint, path: Path, **changes: object) -> Path:
        origin = {"file": part.path.name, "sha256": part.card["sha256"]}
        training = {**part.card.get("training", {}), "origin": origin}
        save_checkpoint(path, part.weights, {**part.card, **changes, "training": training})
        return path

    if nvae is None:
        return [save(checkpoint, target)]
    beside = save(nvae, target.with_name(f"{target.stem}-nvae.safetensors"))
    sha256 = json.loads(beside.with_suffix(".json").read_text())["sha256"]
    return [save(checkpoint, target, nvae={"file": beside.name, "sha256": sha256}), beside]
