"""Which single change makes better samples at equal minutes: of the network, the target, the batch, the training.

    python -m benchmarks.quality.levers run --minutes 30 --seeds 0 1   # train, sample and score each
    python -m benchmarks.quality.levers table                           # reports/benchmarks/levers.md from levers.json

Reads params.yaml, from which each contender differs by one lever, and data/processed/, data/reference/ and
data/weights/ of this workspace. The speed of each network is measured first, when nothing else should run; what it
does in the minutes is then a number of images, so that a busy machine changes how long this takes and no figure.
Killed, and started again by the same command, it goes on.
"""

import argparse
import json
from typing import Any

import torch

from benchmarks import RESULTS, machine, read, whereabouts, write
from benchmarks.changes import Changes, changed, changed_config
from benchmarks.quality.recipe import base_params
from benchmarks.quality.trial import check_data, digest, plan, trial
from ddpm.config import load_config
from ddpm.data.dataset import load_packed
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import guarded
from ddpm.runtime.paths import PROCESSED
from ddpm.runtime.stage_files import write_whole

FILE, PAGE = RESULTS / "levers.json", RESULTS / "levers.md"
LEVERS: dict[str, Changes] = {
    "plain": {},
    "target v": {"diffusion.target": "v"},
    "time steps around log-SNR 0": {"train.timesteps": "logsnr"},
    "learning rate falls in the last 30 %": {"train.lr_decay": 0.3},
    "average over 15 % of the training": {"train.ema_length": 0.15},
    "without patches": {"model.patch": 1, "model.attention": [16]},
    "48 channels": {"model.channels": 48},
    "64 channels": {"model.channels": 64},
    "batches of 16": {"train.batch_size": 16},
    "batches of 64": {"train.batch_size": 64},
}
SCORES = ("fid", "kid", "coverage")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.levers", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--minutes", type=float, default=30.0, help="of training for each (default 30)")
    parser.add_argument("--samples", type=int, default=1000, help="images per score (default 1000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default 0 1)")
    parser.add_argument(
        "--only", nargs="+", choices=LEVERS, default=list(LEVERS), metavar="LEVER", help="of these alone"
    )
    options = parser.parse_args()
    guarded(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Do what was asked for; the page follows each training."""
    if options.what == "run":
        measure(options)
    print(publish(read(FILE, "python -m benchmarks.quality.levers run")))


def measure(options: argparse.Namespace) -> None:
    """Train, sample and score what is not in the file yet."""
    config, params = load_config(), base_params(options.samples)
    check_data(config)
    device, images = choose_device(config.device), checksum(PROCESSED / "images.npy")
    setting = {"minutes": options.minutes, "params": params | {"epochs": None, "tracking": None}, "images": images}
    content = json.loads(FILE.read_text()) if FILE.exists() else {}
    if content.get("setting") != setting:
        content = {"setting": setting, "machine": machine(device), "rates": rates(options.minutes, device), "rows": []}
        write(FILE, content)
    for seed in options.seeds:
        for lever in options.only:
            if any((row["lever"], row["seed"]) == (lever, seed) for row in content["rows"]):
                continue
            print(f"{lever}, seed {seed}")
            wanted = changed(params, LEVERS[lever] | {"seed": seed})
            rate = content["rates"][lever]
            result = trial(wanted, options.minutes, digest([images, rate]), rate)
            content["rows"].append({"lever": lever, "seed": seed, **result})
            write(FILE, content)
            publish(content)


def rates(minutes: float, device: torch.device) -> dict[str, float]:
    """Images/s of each lever; those that change neither network nor batch are as fast as the plain one."""
    config, packed, found = load_config(), load_packed(PROCESSED), {}
    for lever, changes in LEVERS.items():
        if found and not any(name.startswith("model.") or name == "train.batch_size" for name in changes):
            found[lever] = found["plain"]
            continue
        found[lever] = plan(changed_config(config, changes), packed, device, minutes)["images_per_second"]
        print(f"{lever}: {found[lever]:.1f} images/s", flush=True)
    return found


def publish(content: dict[str, Any]) -> str:
    """Write the page, and return it."""
    write_whole(PAGE, text := page(content))
    return text


def page(content: dict[str, Any]) -> str:
    """What was measured, in Markdown: each seed's scores with the interval of its samples."""
    setting, rows = content["setting"], content["rows"]
    params = setting["params"]
    model, side = params["model"], params["data"]["image_size"]
    lines = [
        "# Levers: better samples at equal minutes",
        "",
        f"{whereabouts(content['machine'])}. Each trained for {setting['minutes']:g} minutes at the speed that its "
        f"network has when nothing else runs. {side}×{side} pixels; the plain one has {model['channels']} channels × "
        f"{model['channel_mults']} on patches of {model['patch']}×{model['patch']}, target "
        f"{params['diffusion']['target']}, and batches of {params['train']['batch_size']}.",
        "",
    ]
    scored = [row for row in rows if "scores" in row]
    if not scored:
        return "\n".join([*lines, "Nothing was scored yet.", ""])
    names = [name for name in SCORES if name in scored[0]["scores"]]
    lines += [
        f"{scored[0]['samples']:,} samples of each against {scored[0]['reference_images']:,} photographs, "
        f"{scored[0]['extractor']} features; in brackets 95 % intervals of the samples.",
        "",
        f"| lever | images/s | epochs | seed | {' | '.join(map(str.upper, names))} |",
        f"|---|---|---|---|{'---|' * len(names)}",
    ]
    for lever in LEVERS:
        for row in (row for row in scored if row["lever"] == lever):
            cells = [lever, f"{content['rates'][lever]:.1f}", str(row["epochs"]), str(row["seed"])]
            lines.append(f"| {' | '.join([*cells, *(cell(row['scores'][name]) for name in names)])} |")
    return "\n".join([*lines, ""])


def cell(score: dict[str, Any]) -> str:
    """A score and its interval."""
    return "{value:.3g} [{low:.3g}, {high:.3g}]".format(**score)


if __name__ == "__main__":
    main()
