"""From labeled images to a verified bundle: train the teacher, distill the student, export, quantize, verify, time.

Each stage leaves its result in the run's folder, so an interrupted run goes on where it was:

    config.json, stats.json              what was asked for; channel and class statistics of the training split
    teacher/ baseline/ student/ qat-…/   checkpoints and logs of each training
    teacher.bundle/ student.bundle/      what a device needs
    data/                                images to calibrate, choose and measure with on a device
    report.html, report.md, report.json  what came out, the first to look at in a browser; pictures/
    samples/                             images to try the bundle on
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import deploy
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.evaluation.receipt import Receipt, require_passed
from deploy.heartbeat import working
from deploy.signals import Stopped
from deploy.signing.sbom import DATA
from distill.config import RunConfig
from distill.data.fingerprint import digest_of
from distill.distillation.ready_made import name_of_teacher, without_path
from distill.distillation.ready_teacher import ReadyTeacher
from distill.export.evaluate import evaluate, torch_model
from distill.export.parity import export, verify_export
from distill.page.render import FILE as PAGE
from distill.page.render import write_page
from distill.pipeline.claim import claim
from distill.pipeline.export_check import reason_of, silenced
from distill.pipeline.prepare import check_run
from distill.pipeline.qat_stage import train_qat, worth_keeping
from distill.pipeline.stages import Trained, TrainedNetworks, train_all
from distill.pipeline.student_choice import time_trained
from distill.pipeline.time_budget import fit_to_time
from distill.quantization.post_training import Outcome, quantize_bundle, write_device_data
from distill.quantization.qat import QatNetwork
from distill.reporting.run_report import Form, Row, bundles_of, latency_of, write_pictures, write_report
from distill.run_context import RunContext
from distill.run_folder import SETTINGS, in_use
from distill.training.distributed import any_process, by_main, main_alone, named_losses
from distill.training.log import say
from distill.training.stage import Interrupted
from distill.training.tracking import stop_tracker
from student.device import folded
from student.zoo import count_macs, count_parameters, is_external

OUT_OF_MEMORY = (
    "the GPU's memory does not suffice; compute each batch in parts (--teacher-train.accumulate 4 "
    "--student-train.accumulate 4), or take a smaller --augment.crop or batch"
)


def run(config: RunConfig) -> Path:
    """Run the whole pipeline and return the path of the report.

    Raises:
        UserError: a mistake in the configuration or the data, or the GPU's memory does not suffice.
        GateFailed: a hop over its budget, after everything has been written.
    """
    with named_losses(), in_use(config.out):
        try:
            checked = check_run(config)
            context, schedule = fit_to_time(checked.context)
            try:
                claim(checked, schedule)
                return run_pipeline(context)
            finally:
                stop_tracker(context.accelerator)
        except Interrupted:
            raise
        except Stopped as stopped:
            message = f"stopped by {stopped}; {config.out} keeps what was finished: continue with --resume"
            raise Interrupted(message, stopped.number) from None
        except torch.OutOfMemoryError as error:
            elsewhere = ", with another --out" if (config.out / SETTINGS).exists() else ""
            raise UserError(OUT_OF_MEMORY + elsewhere) from error


def run_pipeline(context: RunContext) -> Path:
    """`run`, once everything has been checked and opened."""
    config, accelerator = context.config, context.accelerator
    networks = train_all(context)
    teacher, student = networks.teacher, networks.student.network
    result = main_alone(lambda: to_device(context, student), accelerator)
    misses = result is not None and config.int8.enabled and not result.int8.complete
    qat = None
    if config.int8.qat_steps and any_process(misses, accelerator):
        qat = train_qat(context, student, None if teacher is None else teacher.network)

    def conclude() -> Path:
        assert result is not None  # in the main process
        best = result if qat is None else to_device_by_qat(context, student, qat, result)
        return finish(context, networks, best)

    return by_main(conclude, accelerator)


@dataclass(frozen=True)
class OnDevice:
    """Result of exporting and quantizing the student."""

    fp32: Receipt
    int8: Outcome
    qat: bool = False
    """Whether the student is the one of quantization-aware training."""


def to_device(context: RunContext, network: nn.Module, qat: QatNetwork | None = None) -> OnDevice:
    """Write `student.bundle` and the images that a device evaluates it on, and quantize it.

    Args:
        context: context of the run.
        network: the student, without simulation.
        qat: the same student in simulated INT8, for its learned ranges; None if it was not trained so.
    """
    config, bundle = context.config, context.config.out / "student.bundle"
    provenance = _provenance(config) | ({"qat_steps": str(config.int8.qat_steps)} if qat else {})
    if context.splits.unlabeled is not None and not config.no_teacher:
        provenance |= {f"{DATA}unlabeled": digest_of(context.splits.unlabeled)}
    with working("exporting the student", say):
        model = export(bundle, network, context, provenance)
    with working("scoring the export on the test split", say):
        receipt = verify_export(bundle, network, model, context)
    with working("writing images to quantize with", say):
        data = write_device_data(context.data, config.int8, config.out)
    if not (config.int8.enabled and receipt.passed):
        return OnDevice(receipt, Outcome(), qat is not None)
    learned = qat.ranges((bundle / MODEL).read_bytes()) if qat else None
    return OnDevice(receipt, quantize_bundle(bundle, data, config.int8, learned), qat is not None)


def to_device_by_qat(context: RunContext, student: nn.Module, qat: QatNetwork, before: OnDevice) -> OnDevice:
    """`to_device` for the network of quantization-aware training, or for the student again if it quantizes no better.

    Args:
        context: context of the run.
        student: the student before quantization-aware training.
        qat: the student after it.
        before: result of `to_device` for `student`.
    """
    if not worth_keeping(context, student, qat):
        return before
    result = to_device(context, qat.plain(), qat)
    if result.fp32.passed and result.int8.better_than(before.int8):
        return result
    say("qat: quantizes no better than the student, which stays as it was")
    return to_device(context, student)


def finish(context: RunContext, networks: TrainedNetworks, result: OnDevice) -> Path:
    """Export the teacher if there is one, measure all networks, and write the report.

    Returns:
        The path of the report.

    Raises:
        GateFailed: a hop is over its budget; everything has been written by then.
    """
    config, teacher, rows = context.config, networks.teacher, []
    if teacher is not None:
        exported = export_teacher(context, teacher.network)
        row = describe(context, teacher, *test_scores(context, teacher.network))
        rows.append(row if exported else replace(row, form=None))
    if networks.baseline is not None:
        rows.append(describe(context, networks.baseline, *test_scores(context, networks.baseline.network)))
    first = result.fp32.hops[0]
    student = describe(context, networks.student, first.score, first.details)
    rows.append(replace(student, name="student, QAT") if result.qat else student)
    receipts = {"Export of the student, hop by hop:": result.fp32}
    if result.int8.receipt:
        receipts["The student in INT8:"] = result.int8.receipt
        rows.append(in_int8(context, rows[-1], result.int8.receipt))
    with working("timing the networks and drawing pictures", say):
        latency, pictures = latency_of(rows), write_pictures(context.data, config.out, bundles_of(rows))
    time_trained(config)
    report = write_report(config, rows, receipts, latency, pictures)
    if config.page:
        with working("predicting the test images for the page", say):
            page = write_page([config.out], config.out / PAGE)
        print(f"\nPage: {page}")
    require_passed(result.fp32)
    if result.int8.failure:
        raise result.int8.failure
    return report


def export_teacher(context: RunContext, network: nn.Module) -> bool:
    """Write `teacher.bundle`; returns whether there is one.

    A teacher that is a bundle stays where it is, and some networks of other packages cannot be exported, which is said.
    """
    config = context.config
    if config.teacher.bundle is not None:
        return False
    if config.export.fold and isinstance(network, ReadyTeacher):
        # it hides the network that export would fold
        network = network.with_network(folded(network.network))
    try:
        with working("exporting the teacher", say), silenced():
            export(config.out / "teacher.bundle", network, context, _provenance(config))
    except UserError:
        raise
    except Exception as error:  # of torch.export, the converter and the checker
        if not (config.ready_made or is_external(config.teacher.arch)):
            raise
        say(f"teacher: cannot be exported to ONNX ({reason_of(error)}), so the run has no bundle of it")
        return False
    return True


def test_scores(context: RunContext, network: nn.Module) -> tuple[float, dict[str, float | None]]:
    """The score of a network on the test split in float32, and its details (see `deploy.evaluation.receipt.Scorer`)."""
    model = torch_model(network, context.spec, context.data, context.accelerator.device)
    with working("scoring on the test split", say):
        scorer = evaluate(model, context.splits.test, context.data)
    return scorer.score(), scorer.details()


def describe(context: RunContext, trained: Trained, score: float, details: Mapping[str, float | None]) -> Row:
    """The report's row of a network, with its scores on the test split."""
    config, bundle = context.config, "teacher" if trained.name == "teacher" else "student"
    if trained.name == "teacher" and config.teacher.bundle is not None:  # it stays where it is
        return Row(trained.name, trained.arch, None, None, score, details, trained.seconds, None)
    return Row(
        name=trained.name,
        arch=trained.arch,
        parameters=count_parameters(trained.network),
        macs=count_macs(trained.network, len(context.splits.channels), config.data.size),
        score=score,
        details=details,
        train_seconds=trained.seconds,
        form=Form(config.out / f"{bundle}.bundle", "fp32"),
    )


def in_int8(context: RunContext, row: Row, receipt: Receipt) -> Row:
    """The report's row of a network in INT8, scored on the images of the other rows.

    Its receipt may be of fewer: those that the run leaves to devices.
    """
    assert row.form is not None  # of a student
    score, details = receipt.hops[-1].score, receipt.hops[-1].details
    if receipt.images < len(context.splits.test):
        model = deploy.load(row.form.bundle, "onnxruntime", precision="int8")
        with working("scoring INT8 on the whole test split", say):
            scorer = evaluate(model, context.splits.test, context.data)
        score, details = scorer.score(), scorer.details()
    form = row.form._replace(precision="int8")
    return replace(row, name=f"{row.name} int8", score=score, details=details, form=form)


def _provenance(config: RunConfig) -> dict[str, str]:
    teacher = {} if config.no_teacher else {"teacher": name_of_teacher(config)}
    return teacher | {"student": without_path(config.student.arch), "seed": str(config.seed)}
