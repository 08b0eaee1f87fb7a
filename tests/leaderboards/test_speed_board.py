"""The table of section 5.5 with measured rows beside it, in every format, and its plot."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from evaluators.measurement import Measurement
from leaderboards import Selection, build_boards, render_text, write_board, write_plots
from leaderboards.board import Board, Cell
from leaderboards.metrics import in_order, metric_of
from leaderboards.plots.speed import time_dots

RANDOM = "weights are random: only time and memory mean anything"
SECONDS = {"vaebm": 15.9, "ncsn": 281.0, "ddpm": 203.0, "nvae": 0.47}
PART = "extrapolated from 20 of 1,000 steps"


def row(system: str, metric: str, value: float | None, *, size: str = "paper", **more: Any) -> Measurement:
    """A row as the suite makes it, with an interval of 5 % where it is a time."""
    timed = value is not None and not metric.endswith(("evaluations", "gib"))
    protocol = {"device": "AMD EPYC, AVX2", "dtype": "float32", "compile": False, "threads": 2, "sample_batch": 16}
    protocol |= {"image_shape": "32x32x3", "sampling": {"steps": 16}, "architecture": f"{system} as published"}
    protocol |= {"interval": "median of 6 rounds, order statistics, 95 %"} if timed else {}
    fields: dict[str, Any] = {
        "low": value * 0.95 if timed and value is not None else None,
        "high": value * 1.05 if timed and value is not None else None,
        "n": 96,
        "seed": 0,
        "note": RANDOM,
        "protocol": protocol | more.pop("protocol", {}),
    }
    return Measurement("speed", system, "cifar10", metric, value, size=size, **{**fields, **more})


def speed_rows(**protocol: Any) -> list[Measurement]:
    rows = []
    for system, seconds in SECONDS.items():
        given: dict[str, Any] = {"protocol": protocol}
        if system in ("ncsn", "ddpm"):
            given["note"] = f"{PART}; {RANDOM}"
        rows.append(row(system, "seconds_per_50_images", 50 * seconds, **given))
        rows.append(row(system, "seconds_per_image", seconds, **given))
        rows.append(row(system, "network_evaluations", 33.0 if system == "vaebm" else 1000.0, **given))
        rows.append(row(system, "gradient_evaluations", 0.0, **given))
        rows.append(row(system, "peak_memory_gib", 2.25, **given))
        if system != "ncsn":
            ratio = SECONDS["ncsn"] / seconds
            rows.append(row(system, "speedup_over_ncsn", ratio, **given | {"note": f"ncsn {PART}; {RANDOM}"}))
            rows.append(
                row(system, "speedup_over_ncsn", ratio * 1.02, role="diagnostic", variant="processor time", **given)
            )
    return rows


def board(rows: list[Measurement]) -> Board:
    (made,) = build_boards(rows)["speed"]
    return made


def cell(made: Board, label: str, column: str) -> Cell:
    (found,) = (c for _, r, k, c in made.cells() if (r.full_label, k.key) == (label, column))
    return found


def test_measured_rows_stand_below_the_published_ones_and_the_ratio_beside_the_papers() -> None:
    made = board(speed_rows())
    labels = [r.full_label for block in made.blocks[:2] for r in block.rows]
    assert labels == ["VAEBM (16 LD steps)", "VAEBM (measured, paper)", "NCSN", "NCSN (measured, paper)"]
    assert cell(made, "VAEBM (16 LD steps)", "speedup_over_ncsn").value == 12
    ratio = cell(made, "VAEBM (measured, paper)", "speedup_over_ncsn")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((17.67, 16.79, 18.56), abs=0.01)
    assert cell(made, "NCSN", "seconds_per_50_images").value == 107.9
    assert [r.full_label for r in made.blocks[2].rows] == ["Denoising Diffusion (paper)", "NVAE (paper)"]
    assert [r.full_label for r in made.blocks[3].rows] == [
        f"{name}: processor time (paper)" for name in ("VAEBM", "Denoising Diffusion", "NVAE")
    ]


def test_footnotes_say_machine_block_and_that_weights_are_random() -> None:
    text = render_text([board(speed_rows())], width=250)
    for said in (
        "Titan RTX: only the ratio",
        "device AMD EPYC, AVX2",
        "sample batch 16",
        "threads 2",
        "dtype float32",
        "median of 6 rounds, order statistics",
        f"{PART}; {RANDOM}",
        f"ncsn {PART}; {RANDOM}",
        "medians over rounds, in each of which every system drew the same number of images",
        "counted by hooks",
        "weights included",
        "never rank a measured row against them",
    ):
        assert said in text
    (samples,) = (note for note in board(speed_rows()).footnotes if note.startswith("Samples: "))
    assert "VAEBM paper: architecture vaebm as published, steps 16;" in samples
    assert "processor time" not in samples  # the same images by another clock


@pytest.mark.parametrize(
    "other",
    [{"device": "Titan"}, {"sample_batch": 50}, {"dtype": "bfloat16"}, {"compile": True}, {"threads": 4}],
    ids=str,
)
def test_other_machines_blocks_and_arithmetics_are_not_ranked_against_each_other(other: dict[str, Any]) -> None:
    def ranked(protocol: dict[str, Any]) -> tuple[list[int], str]:
        rows = [
            replace(row(system, "seconds_per_50_images", value, protocol=given), note="")
            for system, value, given in (("glow", 1.0, {}), ("nvae", 2.0, {}), ("ddpm", 3.0, protocol))
        ]
        made = board(rows)
        ranks = [c.rank for _, r, k, c in made.cells() if k.key == "seconds_per_50_images" and r.origin == "measured"]
        return ranks, " ".join(made.footnotes)

    assert ranked({})[0] == [1, 2, 0]
    ranks, text = ranked(other)
    assert ranks == [1, 0, 0]
    assert f"Not ranked against each other, {next(iter(other)).replace('_', ' ')} differs" in text


def test_an_architecture_is_no_reason_not_to_rank() -> None:
    rows = [
        replace(row(name, "seconds_per_50_images", value), note="") for name, value in (("glow", 1.0), ("nvae", 2.0))
    ]
    made = board(rows)
    assert cell(made, "Glow (paper)", "seconds_per_50_images").rank == 1
    assert "Not ranked" not in " ".join(made.footnotes)


def test_an_extrapolated_time_is_not_ranked_against_one_that_was_measured() -> None:
    rows = [
        row("glow", "seconds_per_50_images", 2.0),
        row("ddpm", "seconds_per_50_images", 1.0, note=f"{PART}; {RANDOM}"),
        row("nvae", "seconds_per_50_images", 3.0),
    ]
    ranks = {r.system: c.rank for _, r, k, c in board(rows).cells() if k.key == "seconds_per_50_images"}
    assert (ranks["glow"], ranks["ddpm"], ranks["nvae"]) == (1, 0, 0)


def test_every_data_set_has_a_table_of_its_own_and_only_cifar_has_the_papers_rows() -> None:
    rows = speed_rows()
    made = build_boards([*rows, *(replace(r, dataset="stacked_mnist") for r in rows)])["speed"]
    assert [b.name for b in made] == ["speed", "speed_stacked_mnist"]
    assert [b.title for b in made] == [
        "Sampling time for 50 CIFAR-10 images: section 5.5 of the paper",
        "Sampling time for 50 StackedMNIST images, measured",
    ]
    assert "Titan" not in " ".join(made[1].footnotes)


def test_without_ratios_nothing_is_said_of_ratios() -> None:
    rows = [r for r in speed_rows() if not r.metric.startswith("speedup")]
    assert "Measured ratios" not in " ".join(board(rows).footnotes)


def test_any_system_may_be_compared_with() -> None:
    assert metric_of("speedup_over_ncsn").title == "Times faster than NCSN"
    assert metric_of("speedup_over_divergence_triangle").title == "Times faster than Divergence Triangle"
    assert metric_of("speedup_over_mine").title == "Times faster than mine"
    assert metric_of("speedup_over_nvae").higher_is_better is True
    asked = {"speedup_over_nvae", "seconds_per_image", "speedup_over_ncsn", "network_evaluations", "peak_memory_gib"}
    assert in_order(asked) == [
        *("seconds_per_image", "network_evaluations", "peak_memory_gib", "speedup_over_ncsn", "speedup_over_nvae")
    ]
    made = board([*speed_rows(), row("vaebm", "speedup_over_nvae", 0.0297)])
    assert cell(made, "VAEBM (measured, paper)", "speedup_over_nvae").value == 0.0297


def test_every_format_holds_every_number(tmp_path: Path) -> None:
    boards = build_boards(speed_rows())["speed"]
    write_board(boards, tmp_path, "speed")
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for name in ("speed.md", "speed.tex", "speed_standalone.tex"):
        assert "795" in texts[name]  # 50 images by VAEBM
        assert "107.9" in texts[name]
        assert "17.7" in texts[name]
    assert r"Times faster than\\NCSN" in texts["speed.tex"]  # a long title is broken
    (ratio,) = (
        line
        for line in csv.DictReader(io.StringIO(texts["speed.csv"]))
        if (line["row"], line["column"]) == ("VAEBM (measured, paper)", "speedup_over_ncsn")
    )
    assert float(ratio["value"]) == pytest.approx(SECONDS["ncsn"] / SECONDS["vaebm"])
    assert float(ratio["low"]) == pytest.approx(0.95 * SECONDS["ncsn"] / SECONDS["vaebm"])
    assert PART in ratio["note"]
    assert json.loads(texts["speed_tables.json"])


def test_a_selection_of_metrics_and_of_published_rows() -> None:
    (made,) = build_boards(speed_rows(), Selection(origin="published"))["speed"]
    assert {r.origin for block in made.blocks for r in block.rows} == {"published"}


# The plot


def labels(axis: Any) -> list[str]:
    return [tick.get_text() for tick in axis.get_yticklabels()]


def test_systems_stand_in_order_of_time_with_their_intervals() -> None:
    figure = time_dots(speed_rows())
    seconds, ratios = figure.axes
    assert labels(seconds) == ["NCSN (paper)", "Denoising Diffusion (paper)", "VAEBM (paper)", "NVAE (paper)"]
    whole, part = (line for line in seconds.lines if line.get_marker() == "o")
    assert dict(zip(whole.get_ydata(), whole.get_xdata(), strict=True)) == {2: 15.9, 3: 0.47}
    assert dict(zip(part.get_ydata(), part.get_xdata(), strict=True)) == {0: 281.0, 1: 203.0}
    assert part.get_markerfacecolor() != whole.get_markerfacecolor()
    ends = {
        round(float(segment[0][1])): (segment[0][0], segment[1][0])
        for collection in seconds.collections
        for segment in collection.get_segments()
    }
    assert ends[2] == pytest.approx((15.9 * 0.95, 15.9 * 1.05))
    assert ratios.get_xlabel() == "Times faster than NCSN"
    assert seconds.get_xscale() == ratios.get_xscale() == "log"


def test_the_papers_ratio_is_drawn_and_its_seconds_are_not() -> None:
    seconds, ratios = time_dots(speed_rows()).axes
    (cross,) = (line for line in ratios.lines if line.get_marker() == "x")
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (12, 2)
    assert not [line for line in seconds.lines if line.get_marker() == "x"]


def test_ticks_are_numbers() -> None:
    figure = time_dots(speed_rows())
    figure.canvas.draw()
    shown = [tick.get_text() for tick in figure.axes[0].get_xticklabels() if tick.get_text()]
    assert shown
    assert all(float(text) > 0 for text in shown)


def test_the_plot_is_a_file_and_an_older_one_is_removed(tmp_path: Path) -> None:
    (path,) = write_plots("speed", SimpleNamespace(rows=speed_rows()), tmp_path)
    assert path.name == "speed_seconds.png"
    assert Image.open(path).width > 600
    assert write_plots("speed", SimpleNamespace(rows=speed_rows()[2:3]), tmp_path) == []
    assert not path.exists()
    assert len(write_plots("speed", SimpleNamespace(rows=speed_rows()), tmp_path, pdf=True)) == 2


def test_a_single_round_has_no_interval_and_is_drawn_all_the_same() -> None:
    lone = replace(row("vaebm", "seconds_per_image", 2.0), low=None, high=None)
    (axis,) = time_dots([lone]).axes
    assert axis.lines[0].get_xdata()[0] == 2.0
