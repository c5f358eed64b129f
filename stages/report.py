"""Write the report, and add scores, pictures and report to the training's MLflow run."""

from pathlib import Path

import numpy as np

from ddpm.config import Config
from ddpm.evaluation.patch_grid import beside_real_images
from ddpm.evaluation.verdict import verdict
from ddpm.reporting.page import write_pages
from ddpm.reporting.report import render
from ddpm.reporting.training_curves import training_facts
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import describe, kind_of_device
from ddpm.runtime.distributed import processes
from ddpm.runtime.lineage import output_places
from ddpm.runtime.paths import MODELS, PROCESSED, REPORTS, SAMPLES
from ddpm.runtime.stage_files import load_array, load_json
from ddpm.runtime.stage_times import stage_times
from ddpm.tracking.identity import run_filter
from ddpm.tracking.runs import later_stage
from ddpm.tracking.score_names import flat_scores
from stages import run


def main(config: Config) -> None:
    """Read models/ and what the other stages left in reports/; write the report and its pictures."""
    model = load_json(MODELS / "config.json", {"training", "schedule", "diffusion", "model"}, "train")
    scores = load_json(REPORTS / "scores" / "scores.json", {"scores", "extractor", "weights", "model_sha256"}, "fid")
    summary = load_json(PROCESSED / "summary.json", {"count", "class_names"}, "preprocess")
    samples = load_array(SAMPLES / "samples.npy", 4, np.uint8, "sample")
    real = load_array(PROCESSED / "images.npy", 4, np.uint8, "preprocess")
    patch = model["model"].get("patch", 1)  # models of earlier versions have none
    key = (REPORTS / "curves" / "key.txt").read_text(encoding="utf-8").strip()
    data_sha256 = checksum(PROCESSED / "images.npy")
    about = {"model": model, "training": model["training"], "scores": scores}
    context = about | {
        **training_facts(model, REPORTS / "curves", REPORTS / "pictures"),
        "verdict": verdict(scores),
        "patch": patch,
        "patch_grid": beside_real_images(samples, real, patch),
        "sample": config.sample,
        "seed": config.seed,
        "run_filter": run_filter(config, key),
        "data_sha256": data_sha256,
    }
    write_pages(render(context), REPORTS, "fid")
    times = stage_times(config.model_dump(mode="json"))
    times.pop("report", None)  # known of an earlier one alone
    device = describe(kind_of_device(config.device), processes())  # apart from the report, which is the same every time
    write_pages(render(about | {"times": times, "device": device}, "cost.md.j2"), REPORTS, "cost")

    with later_stage(config, key) as tracker:
        tracker.scores(flat_scores(scores))
        tracker.metrics({f"seconds/{stage}": seconds for stage, seconds in times.items()})
        weights = scores["weights"]["sha256"]
        tracker.tags({"extractor": scores["extractor"], "weights.sha256": weights, "data.sha256": data_sha256})
        tracker.dataset(config.data, summary, data_sha256, "evaluation")
        for name in (f"{page}.{suffix}" for page in ("fid", "cost", "explore") for suffix in ("md", "html")):
            tracker.artifacts(REPORTS / name, "report")
        for path in map(Path, output_places()):  # file by file, without what a user keeps beside them
            if path.parent.parent == REPORTS and path.parent.name != "curves":
                tracker.artifacts(path, f"report/{path.parent.name}")
    print(f"The report is in {REPORTS / 'fid.html'}")


if __name__ == "__main__":
    run(main)
