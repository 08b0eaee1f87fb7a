"""Score generative models the way the VAEBM paper does.

  python benchmark.py --suite ood                                    bundled models and images, offline
  python benchmark.py --suite generation --samples mine=folder/      your images: folder, zip, .npy, .npz, statistics
  python benchmark.py --suite modes                                  StackedMNIST and 25 Gaussians
  python benchmark.py --suite ood --scores mine=scores.npz           your scores, from any framework
  python benchmark.py --suite all --checkpoint mine=vaebm.safetensors
  python benchmark.py --suite all --check baseline.json              exit code 1 on a real regression
  python benchmark.py --board results/a results/b                    tables and a page of finished runs

The table goes to stdout, progress to stderr, files to --out: <suite>.json (every row with its provenance), .md, .csv,
.tex, plots and index.html.
"""

if __name__ == "__main__":  # before the imports, which take a moment
    from vaebm.interrupts import watch

    watch()

import shlex
import sys
import time
from argparse import RawDescriptionHelpFormatter as RawHelp
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from evaluators import SUITES
from evaluators.pairing import score_correlations
from evaluators.places import cache_folder
from evaluators.reproduce import deciding_options, report, stored_options
from evaluators.result_file import check_destinations
from evaluators.suite import NAMED, Bench, refuse
from leaderboards import cli
from leaderboards.files import names_of
from vaebm import parallel
from vaebm.cli import named, number_or_auto, parse, run, use_device
from vaebm.errors import UserError, did_you_mean
from vaebm.lock import locked

HERE = Path(__file__).parent
LISTS = ("suites", "tables", "systems", "datasets")
COMPUTING = ("device", "batch_size", "sample_batch", "dtype", "compile")


def parser() -> ArgumentParser:
    """Every option: command line > --config file > default. Each suite brings its own."""
    options = ArgumentParser(exit_on_error=False, allow_abbrev=False, formatter_class=RawHelp)
    options.prog, options.description = "benchmark.py", __doc__
    add = options.add_argument
    add("--config", action="config", help="YAML or JSON file with any of these options")
    add("--suite", type=str, help="what to measure, or 'all'; --list names the suites")
    add("--systems", type=str, default="all", help="names with commas, 'all', or 'none': only what other options bring")
    add("--checkpoint", **NAMED, help="NAME=FILE or NAME=checkpoint.pt,EBM.pth; NAME may replace a bundled system")
    add("--dataset", type=str, default="", help="what the systems model (default: the suite's)")
    add("--num-images", type=int, default=0, help="images per set or system; 0 is the suite's default")
    add("--seed", type=int, default=0, help="decides samples, posterior noise, dequantisation and bootstrap")
    add("--data-root", type=str, default=None, help="folder with data sets, searched first (default: $VAEBM_DATA)")
    add("--offline", action="store_true", help="never use the network")
    add("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--batch-size", type=number_or_auto, default=100, help="images scored per pass, or auto; changes speed alone")
    add("--sample-batch", type=number_or_auto, default=16, help="images drawn together, or auto; decides last bits")
    add("--dtype", type=str, default="float32", help="of systems' networks: float32, tf32, bfloat16 or float16")
    add("--compile", action="store_true", help="compile systems' networks (torch.compile)")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    add("--out", type=Path, default=None, help=f"folder for results (default: {cli.OUT}; of --board: {cli.JOINED})")
    add("--cache", type=str, default="", help="folder of what is kept (default: the user's cache folder), or 'none'")
    add("--no-progress", action="store_true", help="no progress bars")
    add("--json", action="store_true", help="print the result file to stdout instead of the table")
    add("--list", type=str, nargs="?", const="all", default="", help=f"what there is: {', '.join(LISTS)}; or a system")
    groups = {"tables, history and gate": cli.OPTIONS} | {
        f"--suite {name}": SUITES.load(name).options for name in SUITES
    }
    seen: set[str] = set()
    for title, group in groups.items():
        section = options.add_argument_group(title)
        for flag, option in group.items():
            if flag not in seen:  # two suites may listen to one option
                section.add_argument(flag, **option)
        seen |= group.keys()
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the front door; return the exit code."""
    options = parse(door := parser(), arguments)
    typed = door.parse_args(arguments, defaults=False).as_dict()
    task = "" if options.list else cli.chosen_task(options, typed)
    if task not in cli.MEASURE and parallel.number():  # the first process tells
        return 0
    if options.list:
        return show_list(options.list)
    if task in cli.TASKS:
        return cli.TASKS[task](options)
    if task == "--board":
        return cli.show_boards(options, score_correlations)
    if task == "--reproduce":
        options = stored_options(door, arguments, cli.OPTIONS)
    if not options.suite:
        raise UserError(f"--suite: found nothing, needed one of {', '.join(SUITES)} or all (--list describes them)")
    chosen = list(SUITES) if options.suite == "all" else options.suite.split(",")
    suites = {name: SUITES.load(name) for name in [*SUITES, *chosen]}  # an unknown name is refused before any work
    refuse(options, suites, chosen)
    options.command = shlex.join(["python", "benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    options.device = str(parallel.start(options.device))
    use_device(options.device, options.threads)
    loaders = cache(partial(systems, options)), partial(images, options)
    shown = not options.no_progress and parallel.rank() == 0
    bench = Bench(options, *loaders, options.out, cache_folder(options.cache), shown)
    with locked(options.out, "--out"):
        parallel.on_main(lambda: check_destinations(options.out, names_of(chosen)))
        if options.dry_run:
            forecasts = [suite().forecast(bench) for name in chosen if hasattr(suite := suites[name], "forecast")]
            parallel.on_main(lambda: print("".join(forecasts), end=""))
            return 0
        runs = [run_suite(name, suites[name](), bench) for name in chosen]
        if parallel.rank():  # the first process tells
            return 0
        cli.refresh_page(options, options.out)
        if options.reproduce:
            return report(options, *runs)
        return cli.check(runs, options, options.out, score_correlations) if options.check else 0


def run_suite(name: str, suite: Any, bench: Bench) -> tuple[Path, Any]:
    """Measure, write and print one suite; return its result file and what is in it."""
    from evaluators.provenance import environment
    from evaluators.result_file import Results, write_results
    from leaderboards import write_plots
    from leaderboards.history import append

    began, options = time.perf_counter(), bench.options
    result = suite.measure(bench)
    about = {"options": deciding_options(options, cli.OPTIONS) | {"suite": name}, **environment(HERE)}
    path, seconds = options.out / f"{name}.json", round(time.perf_counter() - began, 1)
    results = Results(name, result.rows, command=options.command, seconds=seconds, **about)
    if parallel.rank():
        return path, results
    write_results(results, path)
    write_plots(name, result, options.out, pdf=options.pdf)
    append(results, options.out)
    text = cli.publish([(path, results)], options, options.out, strict=False)
    print(path.read_text() if options.json else text, end="")
    print(f"{len(result.rows)} rows in {time.perf_counter() - began:.0f} s; files in {options.out}", file=sys.stderr)
    return path, results


def show_list(what: str) -> int:
    """Print what there is, one kind of it or one system, without importing a network."""
    from baselines.listing import as_lines, describe, first_sentence, systems_summary, systems_table
    from leaderboards import build_boards
    from vaebm.data import DATASETS

    kinds = {
        "suites": {name: first_sentence(SUITES.load(name)) for name in SUITES},
        "tables": {board.name: board.title for boards in build_boards([]).values() for board in boards},
        "systems": systems_summary(),
        "datasets": {name: f"{info.title}; {info.licence}" for name, info in DATASETS.items()},
    }
    if what in kinds["systems"] or what == "systems":
        print(systems_table() if what == "systems" else describe(what))
        return 0
    if what not in ("all", *kinds):
        raise UserError(f"--list {what}: unknown.{did_you_mean(what, (*kinds, *kinds['systems']))}")
    print("\n".join(as_lines(kind, kinds[kind]) for kind in (kinds if what == "all" else [what])))
    return 0


def systems(options: Namespace, dataset: str) -> dict[str, Any]:
    """Load the systems asked for, with their weights for a data set and with what decides the meaning of their numbers."""
    from baselines.load import chosen
    from baselines.sources import source_files
    from evaluators.array_store import source_hash
    from evaluators.provenance import package_versions
    from evaluators.subjects import SystemUnderTest

    shared = {key: options.get(key) for key in (*COMPUTING, "seed", "importance_samples", "random_weights")}
    loaded = chosen(options.systems, named("--checkpoint", options.checkpoint), dataset, **shared)
    version = {"torch": package_versions()["torch"], "device": options.device.split(":")[0]}
    for about in loaded.values():
        if about.get("fingerprint"):  # else it does not say what decides its numbers, and none is ever kept
            about["fingerprint"] |= {"code": source_hash(source_files(about["system"])), **version}
    return {name: SystemUnderTest(name, **about) for name, about in loaded.items()}


def images(options: Namespace, spec: str, **how: Any) -> Any:
    """Load images by name or path from this run's places, by the one resize path there is."""
    from vaebm.data import load_images

    return load_images(spec, data_root=options.data_root, download=not options.offline, **how)


if __name__ == "__main__":
    raise SystemExit(run(main))
