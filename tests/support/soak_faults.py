"""Is a finished experiment of the soak whole in DVC and in MLflow?"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import yaml

from tests.support.tiny_repository import call


def faults_of(root: Path, name: str, scores: dict[str, float], known: Counter[str]) -> list[str]:
    """What is not whole in a finished experiment: its lock file, its files in the cache, its scores."""
    (ref,) = [
        ref
        for ref in call(root, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        if ref.endswith(f"/{name}")
    ]
    lock = yaml.safe_load(call(root, "git", "show", f"{ref}:dvc.lock"))["stages"]
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    found = [f"{name}: no {stage} in dvc.lock" for stage in stages if stage not in lock]
    for stage, entry in lock.items():
        found += [
            f"{name}: {out['path']} of {stage} is not whole in the cache"
            for out in entry["outs"]
            if out["path"] != "reports/fid.json" and not cached(root, out["md5"], known)
        ]
    fid = json.loads(call(root, "git", "show", f"{ref}:reports/fid.json"))["efficientnet_lite0"]
    found += [
        f"{name}: {score} is {fid[score]} in DVC and {scores.get(score)} in MLflow"
        for score in ("fid", "kid")
        if fid[score] != scores.get(score)
    ]
    return found


def cached(root: Path, md5: str, known: Counter[str]) -> bool:
    """The object and, for a folder, all its files are in DVC's cache and have the checksums of their names."""
    if known[md5]:
        return True
    path = root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    if not path.is_file() or hashlib.md5(path.read_bytes()).hexdigest() != md5.removesuffix(".dir"):
        return False
    known[md5] = 1
    entries = json.loads(path.read_text()) if md5.endswith(".dir") else []
    return all(cached(root, entry["md5"], known) for entry in entries)
