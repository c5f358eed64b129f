"""What `benchmarks.quality.peers` measured, as a table and as a figure."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import whereabouts
from benchmarks.quality.published import LABELS, SIZES
from benchmarks.quality.recipe_pages import number_logarithmic
from ddpm.reporting.figures import default_style, save
from ddpm.reporting.report import EXTRACTOR_NOTES

HEAD = [
    "",
    "M parameters",
    "batch",
    "images/s",
    "calls per image",
    "FID",
    "KID × 1000",
    "precision",
    "recall",
    "coverage",
]


def page(content: dict[str, Any]) -> str:
    """Render the comparison as Markdown."""
    rows = content["contenders"]
    if not rows:
        return "Nothing was measured yet: `python -m benchmarks.quality.peers run`.\n"
    one = next(iter(rows.values()))
    reference = reference_of(rows)
    goal = final_fid(rows[reference]) if reference else None
    places = sorted({whereabouts(row["machine"]) for row in rows.values()})
    floor = one["moments"][-1]["floor"]
    lines = [
        f"# {len(rows)} recipe{'s' * (len(rows) != 1)}, {content['minutes']:g} minutes of training each",
        "",
        *places,
        "",
        f"The same photographs; {content['samples']:,} images of each by its own sampler, against "
        f"{one['moments'][-1]['reference_images']:,} photographs, **{one['extractor']} features**. "
        f"{EXTRACTOR_NOTES[one['extractor']]}",
        "",
        f"Floor: {floor['images']:,} photographs in the samples' place score {floor['scores']['fid']['real']:.2f}."
        if floor
        else "There are too few photographs for a floor.",
        "",
        "One training each. In brackets are 95 % intervals for another draw of samples; what another seed of the "
        "training would change is not in them."
        + (
            f" The minutes are those of the first score that is no higher than the last one of the {LABELS[reference]}."
            if reference
            else ""
        ),
        "",
        _line([*HEAD, "minutes to that score"]),
        _line(["---"] * (len(HEAD) + 1)),
        *(_line(_cells(name, rows[name], goal)) for name in LABELS if name in rows),
        "",
    ]
    return "\n".join(lines)


def reference_of(rows: dict[str, Any]) -> str | None:
    """Whose final score the others are to reach: the best that was made of diffusers; None if none was."""
    found = [name for name in ("diffusers", *SIZES) if name in rows]
    return min(found, key=lambda name: final_fid(rows[name]), default=None)


def final_fid(row: dict[str, Any]) -> float:
    """FID at the end of the training."""
    return row["moments"][-1]["scores"]["fid"]["value"]


def minutes_to(row: dict[str, Any], goal: float) -> float | None:
    """Minutes of the first moment whose FID is no higher than `goal`; None if there is none."""
    reached = (moment["minutes"] for moment in row["moments"] if moment["scores"]["fid"]["value"] <= goal)
    return next(reached, None)


@default_style()
def draw(content: dict[str, Any], path: Path) -> None:
    """Draw FID against minutes of training, a line per recipe, and the floor."""
    rows = content["contenders"]
    figure = Figure((6.4, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, row in rows.items():
        fids = [moment["scores"]["fid"] for moment in row["moments"]]
        ends = [[abs(fid[end] - fid["value"]) for fid in fids] for end in ("low", "high")]
        minutes, values = [moment["minutes"] for moment in row["moments"]], [fid["value"] for fid in fids]
        axes.errorbar(minutes, values, ends, fmt="o-", capsize=3, label=LABELS[name].replace("`", ""))
    floors = [floor for row in rows.values() if (floor := row["moments"][-1]["floor"])]
    if floors:
        axes.axhline(floors[0]["scores"]["fid"]["real"], ls="--", color="k", label="floor: photographs")
    extractor = next((row["extractor"] for row in rows.values()), "")
    axes.set(xlabel="minutes of training", ylabel=f"FID ({extractor} features)", yscale="log")
    axes.minorticks_off()
    number_logarithmic(axes.yaxis)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.suptitle(content["device"])
    save(figure, path)


def _cells(name: str, row: dict[str, Any], goal: float | None) -> list[str]:
    last = row["moments"][-1]["scores"]
    reached = minutes_to(row, goal) if goal is not None else None
    return [
        LABELS[name],
        f"{row['parameters'] / 1e6:.1f}",
        str(row["batch"]),
        f"{row['images_per_second']:.0f}",
        str(row["calls"]),
        f"{last['fid']['value']:.2f} [{last['fid']['low']:.2f}, {last['fid']['high']:.2f}]",
        f"{1000 * last['kid']['value']:.2f} ± {1000 * last['kid']['error']:.2f}",
        f"{last['precision']['value']:.2f}",
        f"{last['recall']['value']:.2f}",
        f"{last['coverage']['value']:.2f}",
        "–" if goal is None else f"{reached:.3g}" if reached is not None else "not reached",
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
