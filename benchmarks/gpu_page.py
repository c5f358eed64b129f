"""The page of `benchmarks.gpu`, in Markdown."""

from collections.abc import Callable
from typing import Any

from benchmarks import in_words, whereabouts
from benchmarks.speed.contenders import LABELS

Part = dict[str, Any]


def page(content: dict[str, Any]) -> str:
    """Render what was measured so far."""
    lines = ["# All that a GPU can show", "", f"{whereabouts(content['machine'])}.", ""]
    for name, (title, section) in SECTIONS.items():
        part = content["parts"].get(name)
        if part is None:
            body = ["Not measured yet."]
        elif "failed" in part:
            body = [f"Failed: {part['failed']}"]
        else:
            body = section(part)
        lines += [f"## {title}", "", *body, ""]
    return "\n".join([*lines, *_calibration(content["calibration"]), ""])


def _tests(part: Part) -> list[str]:
    failed = part["failed_tests"]
    line = f"{part['passed']} tests passed, {len(failed)} failed, {part['skipped']} skipped."
    return [line, *(f"- failed: `{name}`" for name in failed)]


def _step(part: Part) -> list[str]:
    computed = part["computed"]
    lines = [
        f"{computed['parameters'] / 1e6:.1f} M parameters, batch {part['batch']}, "
        f"{computed['flops'] / 1e12:.3g} TFLOP. "
        f"Computed, if not compiled: {computed['memory'] / 1e9:.2f} GB"
        + (f", {computed['eager_seconds'] * 1e3:.0f} ms" if "eager_seconds" in computed else "")
        + ".",
        "",
        "| | ms per step | images/s | of the bf16 peak | memory | with fragments | first step |",
        "|---|---|---|---|---|---|---|",
    ]
    for form, row in part["forms"].items():
        if "failed" in row:
            lines.append(f"| {form} | {row['failed']} | – | – | – | – | – |")
            continue
        middle, highest = row["step_seconds"]["median"], part["peak_flops"]
        share = f"{computed['flops'] / middle / highest:.0%}" if highest else "not known"
        milliseconds = {name: value * 1e3 for name, value in row["step_seconds"].items()}
        cells = [form, in_words(milliseconds, ".1f"), f"{part['batch'] / middle:.1f}", share]
        cells += [_gb(row["memory"]), _gb(row["reserved"]), f"{row['first_seconds']:.1f} s"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _peers(part: Part) -> list[str]:
    lines = [f"Batch {part['batch']}, the same network and images.", ""]
    lines += ["| | images/s | ours is faster by | memory |", "|---|---|---|---|"]
    for name, row in part["contenders"].items():
        ratio = in_words(row["ours_over_this"], ".2f") if name != "ours" else "–"
        lines.append(
            f"| {LABELS[name]} | {in_words(row['images_per_second'], '.1f')} | {ratio} | {_gb(row['peak_memory'])} |"
        )
    return lines


def _sampling(part: Part) -> list[str]:
    lines = [f"{part['sampler']}, {part['steps']} steps.", ""]
    lines += ["| | at a time | images/s | memory | first two steps |", "|---|---|---|---|---|"]
    for row in part["rows"]:
        cells = (
            [row["failed"], "–", "–"]
            if "failed" in row
            else [f"{row['images_per_second']:.2f}", _gb(row["memory"]), f"{row['warm_up_seconds']:.1f} s"]
        )
        lines.append(f"| {' | '.join([row['form'], str(row['size']), *cells])} |")
    return lines


def _training(part: Part) -> list[str]:
    clock = f"{part['train_seconds'] / 60:.1f} minutes" if part["train_seconds"] else "in more than one go"
    lines = [
        f"{part['epochs']} epochs at {part['images_per_second']:.1f} images/s, {clock}, "
        f"{part['parameters'] / 1e6:.1f} M parameters; {part['samples']:,} samples, {part['extractor']} features.",
        "",
        "| score | value | 95 % interval | as many real images |",
        "|---|---|---|---|",
    ]
    floor = (part["floor"] or {}).get("scores", {})
    for name, score in part["scores"].items():
        if score and "low" in score:
            real = f"{floor[name]['real']:.3g}" if name in floor else "–"
            lines.append(f"| {name} | {score['value']:.4g} | {score['low']:.4g} to {score['high']:.4g} | {real} |")
    return lines


def _calibration(known: dict[str, Any] | None) -> list[str]:
    if not known:
        return [
            "## Forecasts",
            "",
            "Nothing was learned for `python -m ddpm doctor --gpu`: that wants a GPU of its table.",
        ]
    return [
        "## Forecasts",
        "",
        f"`python -m ddpm doctor --gpu` now goes by {known['compiled']:.0%} of the peak compiled, "
        f"{known['eager']:.2f} times the computed time otherwise, and {known['fragments']:.0%} of the memory lost in "
        "fragments.",
    ]


def _gb(size: float | None) -> str:
    return f"{size / 1e9:.2f} GB" if size else "–"


SECTIONS: dict[str, tuple[str, Callable[[Part], list[str]]]] = {
    "tests": ("Does it work?", _tests),
    "step": ("A training step", _step),
    "peers": ("Beside diffusers", _peers),
    "sampling": ("Sampling", _sampling),
    "training": ("A training", _training),
}
