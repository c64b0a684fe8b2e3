"""Runs with teachers that are used as they are."""

import json

import torch

from distill.pipeline.prepare import prepare
from distill.pipeline.stages import train_all
from distill.run import parse

SMALL = ("smoke", "--precision=fp32", "--student.arch=edge/8", "--student.no-detail", "--no-baseline")
LARGE = ("--data.size=32", "48", "--augment.crop=32", "48")
"""The size of the bundles."""


def parsed(tmp_path, *arguments):
    return parse([*SMALL, *map(str, arguments), f"--out={tmp_path / 'run'}"])


def distilled(config):
    """Train the student; its logged values, and the networks."""
    trained = train_all(prepare(config))
    lines = (config.out / "student" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line], trained


def first_image(context):
    """A batch of the first training image in raw units, and the run's mean and deviation."""
    stats = (torch.tensor(values).view(-1, 1, 1) for values in (context.stats.mean, context.stats.std))
    return context.splits.train[0].image.float()[None], *stats


def write_map(tmp_path, classes):
    (tmp_path / "map.json").write_text(json.dumps(classes))
    return f"--teacher.classes={tmp_path / 'map.json'}"
