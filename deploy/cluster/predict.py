"""Predict what is left of a run on a cluster."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from deploy.cluster.fitness import Job
from deploy.cluster.gather import outcomes
from deploy.cluster.report import Report
from deploy.cluster.scenes import Scene, prepared, rows_for
from deploy.cluster.tasks import Item, predict_image, predict_part, write_scene
from deploy.cluster.work import Work
from deploy.errors import UserError, warn
from deploy.raster.progress import Progress


def predict_images(client: Any, job: Job, work: Work, items: Sequence[Item], report: Report) -> None:
    """Predict images.

    Args:
        client: a `distributed.Client`.
        job: what all tasks share.
        work: the open work folder; it gets what is done.
        items: the images.
        report: gets what is done and what failed.

    Raises:
        UserError: as `deploy.cluster.gather.outcomes`.
    """
    futures = client.map(predict_image, [job] * len(items), items, pure=False)
    item_of = dict(zip(futures, items, strict=True))
    with closing(Progress("images")) as progress:
        progress(0, len(items))
        for number, (future, outcome) in enumerate(outcomes(client, futures, "images"), 1):
            if outcome.done is not None:
                work.add(outcome.done)
                report.done += 1
            else:
                report.fail(outcome.error, item_of[future].path)
            progress(number, len(items))


def predict_scenes(client: Any, job: Job, work: Work, scenes: Sequence[Scene], report: Report) -> None:
    """Predict rasters, but for those of their chunks that an earlier run has done. Arguments as `predict_images`.

    Raises:
        UserError: as `deploy.cluster.gather.outcomes`; or an output exists that is not of this run.
    """
    rows = rows_for(scenes, max(1, sum(client.nthreads().values())))
    placed = [_placed(scene, work, rows) for scene in scenes]
    chunks, scene_of = [], {}
    for scene in placed:
        missing = scene.missing()
        parts = [scene.only(one) for one in missing]
        futures = client.map(predict_part, [job] * len(parts), parts, missing, pure=False) if parts else []
        chunks += futures
        scene_of[client.submit(write_scene, job, scene, futures, pure=False)] = scene
    total = sum(len(one.chunks()) for one in placed)
    done = total - len(chunks)
    with closing(Progress("chunks")) as progress:
        progress(done, total)
        for future, outcome in outcomes(client, [*chunks, *scene_of], "chunks and files"):
            scene = scene_of.get(future)
            if scene is None:
                done += 1
                progress(done, total)
            elif outcome.done is not None:
                work.add(outcome.done)
                work.drop_chunks(scene.folder)
                report.done += 1
            else:
                report.fail(outcome.error, str(scene.raster.path))


def check_outputs(work: Work, scenes: Sequence[Scene]) -> None:
    """Check that no result would replace a file that is not of this run.

    Raises:
        UserError: there is one; the message names it.
    """
    for scene in scenes:
        out = work.out / scene.name
        if out.exists() and not (work.chunks / scene.name).is_dir() and scene.input not in work.done:
            raise UserError(f"{out}: exists; remove it or choose another name")


def _placed(scene: Scene, work: Work, rows: int) -> Scene:
    """The scene with the folder of its chunks."""
    ready, changed = prepared(replace(scene, folder=work.chunks / scene.name), rows)
    if changed:
        warn(
            f"{scene.raster.path}: has changed since the run was started, so it is predicted from its beginning"
        )
    return ready
