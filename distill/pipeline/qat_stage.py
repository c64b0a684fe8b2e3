"""The stage of quantization-aware training: the student is fine-tuned in simulated INT8."""

from dataclasses import replace

from torch import nn

from deploy.errors import UserError
from deploy.heartbeat import working
from distill.config import TrainConfig
from distill.data.loader import train_batches
from distill.distillation.build import build_distillation
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.expression import parse_terms
from distill.pipeline.stages import finished_before, load_finished, training_stage, validate
from distill.quantization.qat import QatNetwork, to_qat
from distill.run_context import RunContext
from distill.training.log import say
from distill.training.loop import train
from distill.training.step_module import normalized

CALIBRATION_BATCHES = 4
"""Batches from which the ranges of activations are initialized; training then learns them."""


def train_qat(context: RunContext, student: nn.Module, teacher: nn.Module | None) -> QatNetwork | None:
    """Fine-tune the student in simulated INT8, unless this run has already done so.

    Args:
        context: context of the run.
        student: the trained student.
        teacher: the trained teacher; it distills the student; None = labels alone.

    Returns:
        The fine-tuned network in evaluation mode; None if the student cannot be trained in simulated INT8, after
        printing the reason.
    """
    config, steps = context.config, context.config.int8.qat_steps
    folder = config.out / f"qat-{steps}-{config.int8.qat_lr:g}"
    # ranges are learned on whole images, as on the device
    whole_images = replace(config, augment=replace(config.augment, crop=config.data.size))
    distills = teacher is not None and config.distill.weight > 0
    stage = training_stage(context.with_config(whole_images), folder.name, config.student, distills=distills)
    training = _schedule(config.student_train, steps, config.int8.qat_lr)
    first = train_batches(
        stage.view, training.batch_size, config.seed, 0, CALIBRATION_BATCHES, order=stage.order
    )
    device = context.accelerator.device
    try:
        with working("calibrating simulated INT8", say):
            images = [normalized(batch, stage, channels_last=False).to(device) for batch in first]
            qat = to_qat(student.to(device), images[0][:2], images, fold=config.export.fold)
    except UserError as error:
        say(str(error))
        return None
    if finished_before(context, folder, steps) is not None:
        load_finished(qat, folder, context)
    else:
        distillation = None
        if teacher is not None and distills:
            terms = _terms_on_outputs(context)
            distillation = build_distillation(teacher, student, stage, context, terms)
        options = {"distillation": distillation, "resume": config.resume}
        train(qat, stage, training, context.accelerator, **options)
    return qat.eval()


def worth_keeping(context: RunContext, student: nn.Module, qat: QatNetwork) -> bool:
    """Whether the student in simulated INT8 has its earlier validation score, within the budget of INT8.

    Called by the main process only.
    """
    metric = context.task.device.metric
    with working("validating the student before and in simulated INT8", say):
        before, after = (validate(context, network)[metric.key] for network in (student, qat))
    keeps = metric.drop(before, after) <= context.config.int8.max_drop
    verdict = "it is exported" if keeps else "over the budget, so the student stays as it was"
    say(
        f"qat: val {metric.name} {metric.text(before)} {metric.unit} before,"
        f" {metric.text(after)} {metric.unit} in simulated INT8: {verdict}"
    )
    return keeps


def _schedule(training: TrainConfig, steps: int, lr: float) -> TrainConfig:
    return replace(
        training,
        steps=steps,
        optimizer="adamw",
        schedule="cosine",
        lr=lr,
        head_lr_factor=1.0,
        warmup=0,
        eval_every=max(1, steps // 4),
        masked_norm=False,  # norms are folded, or keep their statistics
        checkpoint_activations=False,  # the simulation reaches the forward pass alone
        compile=False,
    )


def _terms_on_outputs(context: RunContext) -> DistillationTerms:
    """The run's terms without those on features, which a folded network does not have."""
    terms = context.terms
    main, unlabeled = (
        tuple(term for term in some if term.feature is None) for some in (terms.main, terms.unlabeled)
    )
    return terms._replace(main=main or parse_terms(context.task.qat_loss), unlabeled=unlabeled)
