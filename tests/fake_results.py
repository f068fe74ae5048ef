"""A made-up results folder by the contract of DESIGN.md section 4, for tests of what reads results."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.results import AFTER_TRICKS, BEFORE_TRICKS, CURVES

CAP = 640.0
POINTS = (4000, 8000, 12000, 16000, 20000)
FAILED = {
    "collapsed": "2 of 10 classes",
    "diverged": "loss_d is nan at step 120",
    "failed": "killed by signal 9",
}

# arm: (role, tricks, factor on FD, {seed: status}, factor on seconds, factor on parameters)
ARMS: dict[str, tuple[str, dict[str, dict[str, Any]], float, dict[int, str], float, float]] = {
    "baseline": ("baseline", {}, 1.0, {}, 1.0, 1.0),
    "label_smoothing": ("trick", {"label_smoothing": {"target": 0.9}}, 0.74, {}, 1.01, 1.0),
    "input_noise": ("trick", {"input_noise": {"sigma": 0.1}}, 0.93, {}, 1.04, 1.0),
    "pooling.kind=average": ("trick", {"pooling": {"kind": "average"}}, 1.02, {3: "collapsed"}, 1.3, 0.8),
    "pooling.kind=max": (
        "trick",
        {"pooling": {"kind": "max"}},
        1.3,
        {1: "collapsed", 4: "diverged", 7: "diverged"},
        1.2,
        0.8,
    ),
    "batch_size.size=16": ("trick", {"batch_size": {"size": 16}}, 0.6, {2: "failed"}, 2.1, 1.0),
    "batch_size.size=128": ("trick", {"batch_size": {"size": 128}}, 1.5, {}, 0.8, 1.0),
    "noise_length": ("trick", {"noise_length": {"length": 32}}, 1.0, {}, 0.99, 0.97),
    "learning_rate": ("control", {"learning_rate": {"both": 2e-5}}, 5.0, {}, 1.0, 1.0),
    "placebo": ("control", {"placebo": {}}, 1.0, {}, 1.02, 1.0),
}


def _card(
    name: str, claim: str, direction: int, kind: str, field: str, control: bool = False
) -> dict[str, Any]:
    default = {"kind": "average", "size": 16}.get(field, 0.5)
    return {
        "name": name,
        "title": name.replace("_", " "),
        "summary": f"What {name} does.",
        "doc": f"What {name} does, at length.",
        "control": control,
        "claims": [
            {
                "text": claim,
                "metric": "fid",
                "direction": direction,
                "source": "Somebody et al. 2016, section 3.4",
                "url": "https://arxiv.org/abs/1606.03498",
            }
        ],
        "fields": []
        if not field
        else [
            {
                "name": field,
                "kind": kind,
                "default": default,
                "off": None,
                "span": None,
                "among": None,
                "doc": "x",
            }
        ],
    }


CARDS = {
    card["name"]: card
    for card in (
        _card("label_smoothing", "lowers FID: D stays less confident", -1, "dial", "target"),
        _card("input_noise", "stabilises: the *supports* overlap | less d_win", -1, "dial", "sigma"),
        _card("pooling", "average pooling keeps gradients dense", -1, "choice", "kind"),
        _card("batch_size", "larger batches lower FID", -1, "choice", "size"),
        _card("noise_length", "more dimensions than the data needs do no good", 0, "choice", "length"),
        _card("learning_rate", "2e-5 is too slow for a short budget", 1, "dial", "both"),
        _card("placebo", "changes nothing", 0, "dial", "", control=True),
    )
}


def write(
    folder: Path,
    *,
    arms: dict[str, Any] | None = None,
    seeds: int = 10,
    extractor: str = "classifier",
    metrics: tuple[str, ...] = ("fid", "is", "kid", "precision", "recall"),
    samples: bool = True,
    curves: bool = True,
    spread: float = 0.08,
    every: str = "",
) -> Path:
    """Write a results folder and return it; `every` = an arm of which every run collapsed."""
    arms = ARMS if arms is None else arms
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    of_seed = random.normal(0, spread / 2, seeds)
    used = sorted({trick for _, tricks, *_ in arms.values() for trick in tricks})
    settings = [f"{t}.{f['name']}" for t in used for f in CARDS.get(t, {"fields": []})["fields"]]
    rows, points = [], []
    if samples:
        (folder / "samples").mkdir(exist_ok=True)
        _picture(random, 0.1).save(folder / "samples" / "real.png")
    for i, (arm, (_, tricks, factor, bad, slower, larger)) in enumerate(arms.items()):
        for seed in range(seeds):
            run = f"{i:08x}{seed:08x}"
            status = "collapsed" if arm == every else bad.get(seed, "ok")
            scored = status not in ("diverged", "failed", "timeout")
            fd = 38.0 * factor * float(np.exp(of_seed[seed] + random.normal(0, spread)))
            fd *= 4 if status == "collapsed" else 1
            row = {
                "run": run,
                "arm": arm,
                "seed": seed,
                "status": status,
                "reason": FAILED.get(status, ""),
                "detectors": "collapse_class;collapse_pair" if status == "collapsed" else "",
                "images": 20000 if scored else 8000,
                "steps": 312,
                "extractor": extractor,
                "samples": 2000,
                "protocol": "aaaabbbbcccc",
                "mode": "fast",
                "dtype": "float32",
                "runs_per_array": 1,
                "threads": 1,
                "device": "cpu",
                "train_seconds": 5.1 * slower * float(np.exp(random.normal(0, 0.02))),
                "score_seconds": 0.4,
                "peak_memory_mb": 512.0,
                "failed_at": {
                    "collapsed": 12000,
                    "diverged": 7040,
                    "no_learn": 4000,
                    "late_collapse": 16000,
                }.get(status, ""),
                "probes": 20,
                "probe_images": 128,
                "parameters": int(200_000 * larger),
                "multiply_adds": int(3_000_000 * larger),
                "environment": "env1",
                "source": "0123456789abcdef",
            }
            for trick, values in tricks.items():
                row |= {f"{trick}.{field}": value for field, value in values.items()}
            if scored:
                scores = {
                    "fd": fd,
                    "kid": fd / 9000 - 0.001,
                    "is": 1 + 9 / (1 + fd / 100),
                    "precision": 1 / (1 + fd / 50),
                    "recall": 1 / (1 + fd / 100),
                }
                row |= {k: v for k, v in scores.items() if {"fd": "fid"}.get(k, k) in metrics}
                row["fd_best"] = row.get("fd", "")
                if extractor.startswith("inception"):
                    row["fid"] = row.get("fd", "")
                if samples:
                    _picture(random, min(1.0, fd / 100)).save(folder / "samples" / f"{run}.png")
            rows.append(row)
            for k, images in enumerate(POINTS):
                if status in FAILED and status != "collapsed" and images > 8000:
                    break
                value = fd * float(np.exp(1.6 * 0.5**k - 0.1 + random.normal(0, 0.03)))
                if "fid" in metrics:
                    points.append([run, images, "raw-eval", "fd", 2000, fd if k == 4 else value])
            for k in range(20):
                points.append([run, 1000 * (k + 1), "", "loss_d", "", 1.3 * 0.97**k + random.normal(0, 0.02)])
                points.append([run, 1000 * (k + 1), "", "loss_g", "", 0.8 * 1.06**k + random.normal(0, 0.05)])
    header = [*BEFORE_TRICKS, *settings, *AFTER_TRICKS]
    rows.sort(key=lambda row: (row["arm"], row["seed"]))
    _csv(folder / "runs.csv", header, [[row.get(column, "") for column in header] for row in rows])
    _csv(
        folder / "curves.csv",
        list(CURVES),
        points if curves else [],
    )
    environment = {
        "grid": folder.name,
        "created_by": "bench 0.1.0",
        "data": {
            "set": "digits",
            "size": 16,
            "classes": [],
            "checksum": "feed",
            "train": 1618,
            "held_out": 179,
        },
        "budget": {"unit": "images", "amount": 20000},
        "recipe": {"channels": 32, "batch_size": 64, "lr": 0.0002, "betas": [0.5, 0.999]},
        "score": {
            "extractor": extractor,
            "samples": 2000,
            "points": [0.2, 0.4, 0.6, 0.8, 1.0],
            "metrics": list(metrics),
        },
        "cap": {"fd": CAP},
        "arms": [{"arm": a, "role": v[0], "tricks": v[1]} for a, v in arms.items()],
        "design": "one-at-a-time",
        "environments": {
            "env1": {
                "git_commit": "c0ffee",
                "git_dirty": False,
                "python": "3.11.7",
                "torch": "2.15.0",
                "torch_fidelity": "0.4.0",
                "cuda": None,
                "cudnn": None,
                "device": "a CPU",
                "platform": "Linux",
                "cores": 2,
            }
        },
        "protocols": {
            "aaaabbbbcccc": {"extractor": extractor, "weights": "abcd", "real": 1618, "samples": 2000},
        },
    }
    (folder / "environment.json").write_text(json.dumps(environment, indent=1) + "\n", encoding="utf-8")
    cards = {trick: CARDS[trick] for trick in used if trick in CARDS}
    (folder / "tricks.json").write_text(json.dumps(cards, indent=1) + "\n", encoding="utf-8")
    (folder / "grid.yaml").write_text(f"name: {folder.name}\ndata: digits\n", encoding="utf-8")
    return folder


def leave_one_out() -> dict[str, Any]:
    """Return arms of a leave-one-out design: the reference has all tricks on."""
    every = {
        "label_smoothing": {"target": 0.9},
        "input_noise": {"sigma": 0.1},
        "pooling": {"kind": "average"},
    }
    arms: dict[str, Any] = {"all": ("baseline", every, 0.7, {}, 1.2, 1.0)}
    for trick, factor in (("label_smoothing", 1.0), ("input_noise", 0.72), ("pooling", 0.6)):
        rest = {name: values for name, values in every.items() if name != trick}
        arms[f"all-{trick}"] = ("trick", rest, factor, {}, 1.1, 1.0)
    return arms


def _csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([[repr(v) if isinstance(v, float) else v for v in row] for row in rows])


def _picture(random: np.random.Generator, noise: float, size: int = 16) -> Image.Image:
    """Return a grid of 4 rows x 8 columns of rings, the noisier the worse."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    tiles = []
    for _ in range(32):
        a, b = random.uniform(0.4, 0.8, 2)
        ring = np.exp(-40 * (np.hypot(x / a, y / b) - 1) ** 2 * 0.3)
        tiles.append(
            np.clip(255 * (ring + noise * random.normal(0, 0.6, ring.shape)), 0, 255).astype(np.uint8)
        )
    return Image.fromarray(np.vstack([np.hstack(tiles[8 * r : 8 * r + 8]) for r in range(4)]))
