"""Configuration of a run: frozen dataclasses without inheritance, each complete in itself.

A preset (see `distill.presets`) is a function that returns a full `RunConfig`; the command line overrides single fields
by their dotted name (`--data.root /data/camvid --student-train.steps 500`). All defaults are here and in the presets.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill.data_config import AugmentConfig, DataConfig
from distill.export_config import ExportConfig, Int8Config
from distill.field_checks import at_least, not_negative, require
from distill.model_config import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """Optimizer, schedule and length of a training."""

    steps: int
    """Number of optimizer steps."""
    batch_size: int = 8
    """Images per optimizer step, over all processes and accumulated micro-batches."""
    accumulate: int = 1
    """Micro-batches per optimizer step (gradient accumulation)."""
    optimizer: Literal["sgd", "adamw", "rmsprop"] = "adamw"
    schedule: Literal["poly", "cosine", "plateau"] = "cosine"
    """Decay of the learning rate: to 0 over the steps, or by `plateau_factor` when validation stops improving."""
    plateau_factor: float = 0.5
    """Factor by which the `plateau` schedule multiplies the learning rate."""
    plateau_patience: int = 3
    """Evaluations in a row without improvement before the rate is reduced (patience); one more reduces it."""
    lr: float = 1e-3
    """Learning rate of the backbone, after the warm-up."""
    head_lr_factor: float = 1.0
    """Learning rate of the heads relative to the backbone (10 in the PSPNet paper)."""
    weight_decay: float = 1e-4
    momentum: float = 0.9
    """Momentum of SGD and RMSprop."""
    warmup: int = 0
    """Steps of linear warm-up."""
    clip: float = 0.0
    """Largest gradient norm; 0 = no clipping."""
    channels_last: bool = True
    """Use the channels-last memory format."""
    checkpoint_activations: bool = False
    """Recompute the backbone's activations in the backward pass instead of storing them: less memory, more time."""
    masked_norm: bool = False
    """Compute the statistics of batch norms over valid pixels only, for images with large areas of no data.
    Only the training changes: the network, its checkpoints and its export have the usual form."""
    compile: bool = False
    """Train with `torch.compile`: minutes to start, then faster steps; worthwhile for long trainings on a GPU."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights, which replaces them in evaluation; 0 = off.
    The first updates have smaller decays (see `distill.training.optim.moving_average`)."""
    workers: int = 0
    """Data-loading processes; 0 = load in the training process, as fast if steps take far longer than loading."""
    eval_every: int = 0
    """Steps between evaluations on the validation split; 0 = only at the end."""
    checkpoint_every: int = 100
    """Steps between checkpoints, from which `--resume` continues."""
    log_every: int = 10
    """Steps between logged values."""

    def __post_init__(self) -> None:
        minima = {"steps": 0, "batch_size": 1, "accumulate": 1, "warmup": 0, "workers": 0, "eval_every": 0}
        minima |= {"checkpoint_every": 1, "log_every": 1, "plateau_patience": 0}
        for name, minimum in minima.items():
            at_least(minimum, "train", name.replace("_", "-"), getattr(self, name))
        require(0 <= self.ema < 1, "train", "ema", f"{self.ema}: must be at least 0 and below 1")
        require(0 < self.lr < math.inf, "train", "lr", f"{self.lr}: must be above 0 and finite")
        require(
            0 <= self.momentum < 1, "train", "momentum", f"{self.momentum}: must be at least 0 and below 1"
        )
        for name in ("head_lr_factor", "weight_decay", "clip"):
            not_negative("train", name.replace("_", "-"), getattr(self, name))
        factor = self.plateau_factor
        require(0 < factor < 1, "train", "plateau-factor", f"{factor}: must be above 0 and below 1")


@dataclass(frozen=True)
class LossConfig:
    """`total = task + λ_kd · kd(student, teacher) + λ_aux · task(aux head)`, each over valid pixels."""

    aux: float = 0.4
    """Weight λ_aux of the auxiliary head on layer3 (0.4 in the PSPNet paper); 0 = no auxiliary head."""
    task: str = "ce"
    """Weighted sum of losses of output and auxiliary head, such as `ce + 0.5*dice`; `edgedistill losses` lists them."""
    class_weights: Literal["none", "log", "inverse", "effective"] = "none"
    """Class weights in the task loss, from the pixels of each class in the training split: inverse log frequency
    (ENet, arXiv:1606.02147), inverse frequency, or inverse effective number of samples (arXiv:1901.05555)."""
    class_weight_values: tuple[float, ...] = ()
    """Explicit class weights, in the order of the classes, instead of `class_weights`."""

    def __post_init__(self) -> None:
        not_negative("loss", "aux", self.aux)
        values = self.class_weight_values
        positive, listed = all(0 < value < math.inf for value in values), " ".join(f"{v:g}" for v in values)
        require(positive, "loss", "class-weight-values", f"{listed}: each must be above 0 and finite")


@dataclass(frozen=True)
class DistillConfig:
    """What the student learns from the teacher, and whether teacher outputs are computed online or cached."""

    loss: str = "kl(t=2)"
    """Weighted sum of distillation losses, such as `kl(t=2) + 3*feature(layer4)`; `edgedistill losses` lists them."""
    aux: str = ""
    """The same for the student's auxiliary head, from the teacher's logits, such as `kl(t=2)`; empty = labels only."""
    unlabeled_loss: str = ""
    """In images without labels, where the teacher is all there is to learn from: in place of `loss`; empty = `loss`."""
    unlabeled_aux: str = ""
    """In images without labels: in place of `aux`; empty = `aux`."""
    start: Literal["teacher", "own"] = "teacher"
    """Initial weights of the student: the teacher's, if the student is a shallower network of the same family
    (see `distill.distillation.weight_transfer`); otherwise, and with `own`, by `student.pretrained` and `weights`."""
    weight: float = 1.0
    """Weight λ_kd of both sums; 0 = the teacher is not run."""
    schedule: Literal["constant", "cosine"] = "constant"
    """λ_kd over the steps: constant, or decreasing to 0 along half a cosine; constant in images without labels."""
    trust: Literal["everywhere", "label"] = "everywhere"
    """Weight of a pixel in distillation: 1, or the probability that the teacher assigns to the pixel's label."""
    min_confidence: float = 0.0
    """In images without labels: the teacher's probability of its most likely class from which a pixel counts."""
    class_weights: Literal["none", "log", "inverse", "effective"] = "none"
    """In images without labels: weights of pixels by the class that the teacher sees there, computed as
    `loss.class_weights` and scaled to a mean of 1 over the labeled training pixels."""
    teachers: tuple[Path, ...] = ()
    """Additional teachers: checkpoints (`best.safetensors`) of other runs on the same data."""
    combine: Literal["mean", "label"] = "mean"
    """Mean of several teachers' probabilities: with equal weights, or by how well each predicts an image's labels."""
    views: int = 0
    """Number of fixed augmented views per image, for which teacher outputs are computed once and cached;
    0 = new views in every epoch, with teacher outputs computed online in every step."""
    cache: Path | None = None
    """Folder of the cached outputs; default: `teacher-cache` in the run's folder. Runs may share it."""
    cache_dtype: Literal["fp32", "fp16", "int8"] = "fp16"
    """Data type of the cached outputs; int8 has a scale for each channel of each view."""

    def __post_init__(self) -> None:
        at_least(0, "distill", "views", self.views)
        not_negative("distill", "weight", self.weight)
        threshold = self.min_confidence
        require(
            0 <= threshold < 1, "distill", "min-confidence", f"{threshold}: must be at least 0 and below 1"
        )


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run, from data to verified bundle."""

    data: DataConfig
    teacher: ModelConfig
    student: ModelConfig
    teacher_train: TrainConfig
    student_train: TrainConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    int8: Int8Config = field(default_factory=Int8Config)
    baseline: bool = True
    """Also train the student without distillation, for as many steps, for comparison."""
    page: bool = True
    """Write `report.html`: tables, curves, classes and images of the run, to look at in a browser."""
    no_teacher: bool = False
    """Train one network on labels alone: the student, without teacher, distillation and baseline."""
    max_minutes: float = 0.0
    """Longest time of all trainings together, in minutes; their steps are reduced in proportion to fit the speed that
    is measured at the start. 0 = as many steps as configured."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of training; auto: bf16 if the device supports it, fp16 on older GPUs, else fp32."""
    tracker: Literal["none", "wandb", "mlflow"] = "none"
    """Experiment tracker in addition to the run's own logs (`pip install 'edgedistill[wandb]'` or `[mlflow]`)."""
    seed: int = 0
    """Seed of initial weights, data order, augmentation, dropout, and built-in data."""
    out: Path = Path("runs/run")
    """Folder of checkpoints, logs, bundles and the report."""
    resume: bool = False
    """Continue an interrupted run in `out`; finished stages are not repeated."""

    @property
    def ready_made(self) -> bool:
        """Whether the teacher is used as it was made elsewhere (see `distill.distillation.ready_made`)."""
        teacher, family = self.teacher, self.teacher.arch.partition("/")[0]
        published = teacher.pretrained and teacher.weights is None and family in ("hf", "torchvision")
        given = bool(teacher.bundle or teacher.classes or teacher.mean or teacher.std)
        return not self.no_teacher and (given or (published and not self.teacher_train.steps))

    @property
    def builds_teacher(self) -> bool:
        """Whether the run builds a teacher of `teacher.arch` for its own classes, and trains or continues it."""
        return not self.no_teacher and not self.ready_made
