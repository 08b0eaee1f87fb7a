"""Score generative models the way the VAEBM paper does.

  python benchmark.py --suite ood                                    bundled models and images, offline
  python benchmark.py --suite ood --scores mine=scores.npz           your scores, from any framework
  python benchmark.py --suite ood --checkpoint mine=vaebm.safetensors
  python benchmark.py --suite ood --ood svhn,textures=my_folder/ --num-images 500
  python benchmark.py --list

The table goes to stdout, progress to stderr, files to --out: <suite>.json (every row with its provenance), .md, .csv,
.tex, plots, and the score of every image.
"""

import os
import shlex
import sys
import time
from argparse import RawDescriptionHelpFormatter as RawHelp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from vaebm.cli import named, parse, run, use_device
from vaebm.errors import UserError

HERE = Path(__file__).parent
PAPER_OOD = "svhn,cifar10_interp,cifar100,celeba"  # the columns of the paper's Table 6
NAMED: dict[str, Any] = {"type": str, "action": "append", "default": [], "metavar": "NAME=PATH"}  # repeatable
LEAST = {"num_images": 4, "batch_size": 1, "importance_samples": 1, "threads": 0, "precision": 0, "seed": 0}


def parser() -> ArgumentParser:
    """Every option: command line > --config file > default."""
    options = ArgumentParser(exit_on_error=False, allow_abbrev=False, formatter_class=RawHelp)
    options.prog, options.description = "benchmark.py", __doc__
    add = options.add_argument
    add("--config", action="config", help="YAML or JSON file with any of these options")
    add("--suite", type=str, help="what to measure, or 'all'; --list names the suites")
    add("--systems", type=str, default="all", help="names with commas, 'all', or 'none': only --checkpoint, --scores")
    add("--checkpoint", **NAMED, help="NAME=FILE or NAME=checkpoint.pt,EBM.pth; NAME may replace a bundled system")
    add("--scores", **NAMED, help="NAME=FILE.npz of your scores: one array per data set, higher = more in-distribution")
    add("--dataset", type=str, default="cifar10", help="in-distribution set")
    add("--ood", type=str, default=PAPER_OOD, help="sets with commas: a name or NAME=PATH (folder, zip, .npy, .npz)")
    add("--num-images", type=int, default=2000, help="images per set: its first ones")
    add("--importance-samples", type=int, default=1, help="K of the bound on log p(x) of VAEs; 1 is the ELBO")
    add("--interp", type=str, default="neighbours", help="pairs of the interpolated set: neighbours, batches, shuffled")
    add("--seed", type=int, default=0, help="decides posterior noise, dequantisation and bootstrap")
    add("--data-root", type=str, default=None, help="folder with data sets, searched first (default: $VAEBM_DATA)")
    add("--offline", action="store_true", help="never use the network")
    add("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--batch-size", type=int, default=100, help="images per pass; changes speed and memory, not results")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    add("--out", type=Path, default=Path("results"), help="folder for results")
    add("--cache", type=str, default="", help="folder of computed scores (default: the user's cache folder), or 'none'")
    add("--precision", type=int, default=2, help="decimals of the tables")
    add("--pdf", action="store_true", help="every plot as PDF, too")
    add("--no-progress", action="store_true", help="no progress bars")
    add("--json", action="store_true", help="print the result file to stdout instead of the table")
    add("--list", action="store_true", help="list suites, systems, data sets and tables")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the front door; return the exit code."""
    options = parse(parser(), arguments)
    if options.list:
        return show_list()
    from evaluators import SUITES

    if not options.suite:
        raise UserError(f"--suite: found nothing, needed one of {', '.join(SUITES)} or all (--list describes them)")
    suites = list(SUITES) if options.suite == "all" else [options.suite]
    for name in suites:
        SUITES[name]  # an unknown name is refused before any work
    for name, least in LEAST.items():
        if options[name] < least:
            raise UserError(f"--{name.replace('_', '-')} {options[name]}: needed at least {least}")
    options.command = shlex.join(["python", "benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    for name in suites:
        {"ood": run_ood}[name](options)
    return 0


def show_list() -> int:
    """Print what there is, without importing a network."""
    from baselines import SYSTEMS
    from baselines.load import read_card
    from evaluators import SUITES
    from leaderboards import BOARDS
    from vaebm.data import DATASETS

    print("suites:     " + ", ".join(SUITES))
    print("tables:     " + ", ".join(BOARDS))
    print("systems:")
    for name in SYSTEMS:
        card = read_card(name)
        missing = "" if card and card.path.is_file() else "  (no weights bundled)"
        print(f"  {name:<14} {card.summary if card else SYSTEMS[name]}{missing}")
    print("data sets:")
    for name, info in DATASETS.items():
        print(f"  {name:<14} {info.title}; {info.licence}")
    return 0


def run_ood(options: Namespace) -> None:
    """Measure and print the out-of-distribution table."""
    from evaluators.measurement import write_measurements
    from evaluators.ood import OODSuite, load_scores
    from evaluators.provenance import environment
    from evaluators.score_store import ScoreStore
    from leaderboards import Style, build_board, render_text, write_board
    from leaderboards.plots import write_plots
    from vaebm.data import DataUnavailable

    began = time.perf_counter()
    scores = {name: load_scores(Path(path)) for name, path in named("--scores", options.scores).items()}
    systems = load_systems(options)
    size = next((system.image_shape[:2] for system in systems.values()), None)
    in_dist = load_set(options.dataset, options, size)
    outer: dict[str, Any] = {}
    for spec in filter(None, options.ood.split(",")):
        try:
            found = load_set(spec, options, size)
            name = found.name
        except DataUnavailable as reason:  # its cells stay empty and say so; the rest of the table comes out
            found, name = reason, spec
        if name in outer:
            raise UserError(f"--ood: two sets are called {name!r}; needed NAME=PATH with a name of its own")
        outer[name] = found
    refuse_idle(options, systems, outer)
    run = {"seed": options.seed, "progress": not options.no_progress, "out": options.out, "scores": scores}
    result = OODSuite().run(systems, in_dist, outer, store=ScoreStore(cache_folder(options.cache)), **run)
    path = options.out / "ood.json"
    seconds = round(time.perf_counter() - began, 1)
    write_measurements(result.rows, path, command=options.command, seconds=seconds, **environment(HERE))
    boards = build_board("ood", result.rows)
    style = Style(decimals=options.precision)
    write_board(boards, options.out, "ood", style)
    whole = {system: {name: terms["score"] for name, terms in sets.items()} for system, sets in result.scores.items()}
    write_plots(whole, result.rows, options.out, "ood", in_distribution=in_dist.name, pdf=options.pdf)
    print(path.read_text() if options.json else render_text(boards, style), end="")
    print(f"{len(result.rows)} rows in {time.perf_counter() - began:.0f} s; files in {options.out}", file=sys.stderr)


def refuse_idle(options: Namespace, systems: dict[str, Any], outer: dict[str, Any]) -> None:
    """Refuse options that nothing in this run listens to."""
    bounds = ["importance_samples" in getattr(system.scorer, "options", ()) for system in systems.values()]
    if options.importance_samples != 1 and not any(bounds):
        raise UserError("--importance-samples: no chosen system has a bound; leave it out or add vaebm to --systems")
    if options.interp != "neighbours" and "cifar10_interp" not in outer:
        raise UserError("--interp: no interpolated set was chosen; leave it out, or add cifar10_interp to --ood")


def load_systems(options: Namespace) -> dict[str, Any]:
    """Load the systems asked for, wrapped with what decides the meaning of their scores."""
    from baselines import SYSTEMS
    from baselines.load import load_system, read_card
    from evaluators.provenance import package_versions
    from evaluators.score_store import source_hash
    from evaluators.subjects import SystemUnderTest

    use_device(options.device, options.threads)
    given = named("--checkpoint", options.checkpoint)
    bundled = [name for name in SYSTEMS if (card := read_card(name)) and card.path.is_file()]
    names = {"all": bundled, "none": []}.get(options.systems, [name for name in options.systems.split(",") if name])
    code = source_hash([*HERE.glob("vaebm/**/*.py"), *HERE.glob("baselines/**/*.py")])
    version = {"code": code, "torch": package_versions()["torch"], "device": options.device.split(":")[0]}
    shared = {key: options[key] for key in ("device", "batch_size", "seed", "importance_samples")}
    loaded = {}
    for name in dict.fromkeys([*names, *given]):
        path = Path(given[name]) if name in given else None
        if path is None:
            SYSTEMS[name]
        system = load_system(name, path, **shared)
        fingerprint = {**system.fingerprint, **version}
        loaded[name] = SystemUnderTest(name, system, system.image_shape, system.size, fingerprint, system.protocol)
    return loaded


def load_set(spec: str, options: Namespace, size: tuple[int, int] | None) -> Any:
    """Load the first images of a set, brought to the systems' size by the one resize path there is."""
    from vaebm.data import load_images

    places = {"data_root": options.data_root, "download": not options.offline}
    return load_images(spec, n=options.num_images, size=size, interp=options.interp, seed=options.seed, **places)


def cache_folder(chosen: str) -> Path | None:
    """Where scores are kept between runs: --cache, else $VAEBM_CACHE, else the user's cache folder."""
    if chosen == "none":
        return None
    import pooch

    return Path(chosen) if chosen else Path(os.environ.get("VAEBM_CACHE") or pooch.os_cache("vaebm")) / "scores"


if __name__ == "__main__":
    raise SystemExit(run(main))
