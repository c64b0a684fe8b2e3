"""Configuration of a run: frozen dataclasses, complete in themselves, no inheritance.

A preset (see `distill.presets`) is a function that returns a full `RunConfig`; the command line overrides single
fields by their dotted name (`--data.root /data/camvid --student-train.steps 500`). Nothing outside this file and the
presets decides a default.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.errors import UserError
from deploy.quantize.limits import MIN_CALIBRATION_IMAGES

MIN_SIDE = 8
"""Pixels of the smallest network input."""
MIN_OPSET = 18
"""Of ONNX, for all operators that exports use."""


class FieldError(UserError):
    """A field of a configuration that cannot have its value, whatever the other sections say.

    Args:
        section: where the field is, as on the command line: "augment"; "train" stands for both trainings.
        field: its name on the command line.
        problem: its value and what it must be.
    """

    def __init__(self, section: str, field: str, problem: str) -> None:
        self.section, self.field, self.problem = section, field, problem
        super().__init__(f"--{section}.{field} {problem}")


def _require(condition: bool, section: str, field: str, problem: str) -> None:
    if not condition:
        raise FieldError(section, field, problem)


def _at_least(minimum: int, section: str, field: str, value: int) -> None:
    _require(value >= minimum, section, field, f"{value}: must be at least {minimum}")


@dataclass(frozen=True)
class DataConfig:
    """Which labeled images to use and at which size the network sees them."""

    name: str
    """The data set, such as `folder`, `camvid` or `tabletop`; `distill.tasks.registry` has all of them."""
    root: Path | None = None
    """Folder of the data set; default: `$EDGEDISTILL_DATA/<name>`. Not used by `synthetic` and `tabletop`."""
    channels: tuple[str, ...] = ()
    """Which channels of the images, by name or position, such as `after` or `0 1`; default: all. Grasp data: `depth`
    (the default), `rgb` or `rgbd`; `cornell_rgb` has colors alone."""
    split_by: Literal["object", "image"] = "object"
    """How Cornell and Jacquard are divided: no object in two splits, or images by chance."""
    size: tuple[int, int] = (96, 96)
    """Network input, height × width in pixels."""
    resize: Literal["stretch", "tile"] = "stretch"
    """How an image of another size meets the network: resized to it, or tiled by a sliding window."""
    normalize: Literal["set", "image", "patch"] = "set"
    """Whose mean and deviation normalize the channels: the training split's, each image's, or each patch's, which is
    what the network sees at a time. For segmentation; see `deploy.inference.normalize`."""
    download: bool = False
    """Let torchvision fetch the data set where it can (VOC)."""
    synthetic_counts: tuple[int, int, int] = (256, 48, 64)
    """Scenes in the train, val and test splits of the built-in data."""
    cache: bool = True
    """Keep decoded training images (at network scale) in memory."""

    def __post_init__(self) -> None:
        _at_least(MIN_SIDE, "data", "size", min(self.size))
        _at_least(1, "data", "synthetic-counts", min(self.synthetic_counts))


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images, applied to image, label and valid mask together."""

    crop: tuple[int, int] = (96, 96)
    """Height × width of a training crop."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random zoom before the crop."""
    balance: float = 0.0
    """Share of the crops that are taken around a class drawn evenly from all, in any image that has it (class uniform
    sampling, as in arXiv:1812.01593); 0 = crops at random. Segmentation only."""
    max_no_data: float = 1.0
    """Largest share of a crop that does not count: without data, void, or outside the image. Others are drawn anew, at
    most ten times; 1 = any crop. Segmentation only."""
    rotate: float = 0.0
    """Largest random turn either way, in degrees; 180 = any. Grasp data only."""
    flip: bool = True
    """Mirror left-right with probability 1/2."""
    vertical_flip: bool = False
    """Mirror top-bottom with probability 1/2 (top-down views only)."""
    photometric: float = 0.3
    """Strength of brightness, contrast and saturation jitter; optical images only, 0 = off."""

    def __post_init__(self) -> None:
        low, high = self.scale
        _require(min(self.crop) >= 1, "augment", "crop", f"{self.crop}: sides must be positive")
        _require(0 < low <= high, "augment", "scale", f"{self.scale}: give the smaller zoom first, above 0")
        _require(0 <= self.rotate <= 180, "augment", "rotate", f"{self.rotate}: must be in 0..180 degrees")
        _require(0 <= self.photometric <= 1, "augment", "photometric", f"{self.photometric}: must be in 0..1")
        for name, share in (("balance", self.balance), ("max-no-data", self.max_no_data)):
            _require(0 <= share <= 1, "augment", name, f"{share}: is a share, from 0 to 1")


@dataclass(frozen=True)
class ModelConfig:
    """One network."""

    arch: str
    """`pspnet/<timm backbone>`, or a name listed by `edgedistill students`. Of the options below, those that a network
    lacks must stay at their defaults."""
    output_stride: Literal[8, 16, 32] = 8
    """Of PSPNet and DeepLabV3+; the others have theirs."""
    head_channels: int = 512
    """Width of the head: of PSPNet's 3×3 convolution (512 in the paper), or DeepLabV3+'s pyramid and decoder (256)."""
    dropout: float = 0.1
    detail: bool = False
    """Outputs of PSPNet at half of the image's size, from its head and the backbone's first maps; for grasp maps."""
    pretrained: bool = False
    """Start the backbone from timm's ImageNet weights (needs network access or a filled cache)."""
    weights: Path | None = None
    """Local weights (.safetensors, or .pth read with weights_only) for the backbone or the whole network."""


@dataclass(frozen=True)
class TrainConfig:
    """One training: optimizer, schedule, length."""

    steps: int
    batch_size: int = 8
    """Images per optimizer step, over all processes and accumulated micro-batches."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    optimizer: Literal["sgd", "adamw", "rmsprop"] = "adamw"
    schedule: Literal["poly", "cosine", "plateau"] = "cosine"
    """How the rate falls: to 0 over the steps, or by `plateau_factor` whenever validation stops improving."""
    plateau_factor: float = 0.5
    """What a plateau multiplies the rate by."""
    plateau_patience: int = 3
    """Evaluations without a better score in a row that are borne; one more is a plateau."""
    lr: float = 1e-3
    head_lr_factor: float = 1.0
    """Learning rate of the heads relative to the backbone (10 in the paper)."""
    weight_decay: float = 1e-4
    momentum: float = 0.9
    """Of SGD and RMSprop."""
    warmup: int = 0
    """Steps of linear warm-up."""
    clip: float = 0.0
    """Largest gradient norm; 0 = no clipping."""
    channels_last: bool = True
    checkpoint_activations: bool = False
    """Compute the backbone's activations again in the backward pass instead of keeping them: less memory, more time."""
    masked_norm: bool = False
    """Take the statistics of batch norms over valid pixels alone, for images of which much has no data. Nothing but the
    training changes: the network, its checkpoints and its export stay what they are."""
    compile: bool = False
    """Train through `torch.compile`: minutes to start, faster steps; it pays for long trainings on a GPU."""
    ema: float = 0.0
    """Decay of the averaged weights used for evaluation; 0 = off."""
    workers: int = 0
    """Data loading processes; 0 = the training's own, as fast where a step takes far longer than its images."""
    eval_every: int = 0
    """Steps between evaluations on the validation split; 0 = only at the end."""
    checkpoint_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        minima = {"steps": 0, "batch_size": 1, "accumulate": 1, "warmup": 0, "workers": 0, "eval_every": 0}
        minima |= {"checkpoint_every": 1, "log_every": 1, "plateau_patience": 0}
        for name, minimum in minima.items():
            _at_least(minimum, "train", name.replace("_", "-"), getattr(self, name))
        _require(0 <= self.ema < 1, "train", "ema", f"{self.ema}: must be in 0..1, below 1")
        _require(self.lr > 0, "train", "lr", f"{self.lr}: must be above 0")
        factor = self.plateau_factor
        _require(0 < factor < 1, "train", "plateau-factor", f"{factor}: must be in 0..1, neither of them")


@dataclass(frozen=True)
class LossConfig:
    """`total = task + λ_kd · kd(student, teacher) + λ_aux · task(aux head)`, each over valid pixels."""

    aux: float = 0.4
    """Weight λ_aux of the auxiliary head on layer3 (0.4 in the PSPNet paper; 0 = no head)."""
    task: str = "ce"
    """Weighted sum of losses against the labels, of the output and of the auxiliary head, such as `ce + 0.5*dice`;
    `edgedistill losses` lists them."""
    class_weights: Literal["none", "log", "inverse", "effective"] = "none"
    """Weigh classes in the task term by their training pixels: inverse log frequency (ENet, arXiv:1606.02147), inverse
    frequency, or inverse effective number of samples (arXiv:1901.05555)."""
    class_weight_values: tuple[float, ...] = ()
    """Weights of the classes in their order, instead."""

    def __post_init__(self) -> None:
        values = self.class_weight_values
        listed = " ".join(f"{value:g}" for value in values)
        _require(
            all(0 < value < math.inf for value in values),
            "loss",
            "class-weight-values",
            f"{listed}: each must be above 0, and finite",
        )


@dataclass(frozen=True)
class DistillConfig:
    """What the student learns from the teacher, and how the teacher's outputs are come by."""

    loss: str = "kl(t=2)"
    """Weighted sum of distillation losses, such as `kl(t=2) + 3*cwd(t=4) + feature(layer4)`; `edgedistill losses` lists
    them."""
    aux: str = ""
    """The same for the student's auxiliary head, from the teacher's logits, such as `kl(t=2)`; empty = labels only."""
    start: Literal["teacher", "own"] = "teacher"
    """Where the student starts: from the teacher's weights where it is a shallower network of the same family (see
    `distill.distillation.weight_transfer`; any other starts as `student.pretrained` and `student.weights` say), or always on its own."""
    weight: float = 1.0
    """Weight λ_kd of both; 0 = the teacher is never asked."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What becomes of λ_kd over the steps: it stays, or falls to 0 along half a cosine."""
    trust: Literal["everywhere", "label"] = "everywhere"
    """Where the teacher counts: everywhere alike, or as much as the probability that it gives to the pixel's label."""
    teachers: tuple[Path, ...] = ()
    """Further teachers: checkpoints (`best.safetensors`) of other runs on the same data."""
    combine: Literal["mean", "label"] = "mean"
    """How several teachers' probabilities are joined: their mean, or weighted in each image by how well each knows its
    labels."""
    views: int = 0
    """Fixed augmented views an image, for which the teacher's outputs are computed once and stored; 0 = new views in
    every epoch, and the teacher runs in every step."""
    cache: Path | None = None
    """Folder of the stored outputs; default: `teacher-cache` in the run's folder. May be shared by runs."""
    cache_dtype: Literal["fp32", "fp16", "int8"] = "fp16"
    """Stored numbers; int8 has a scale for each map of each view."""

    def __post_init__(self) -> None:
        _at_least(0, "distill", "views", self.views)
        _require(self.weight >= 0, "distill", "weight", f"{self.weight}: must be at least 0")


@dataclass(frozen=True)
class ExportConfig:
    """The bundle and the budget that its every hop must meet."""

    max_drop: float = 0.001
    """Largest loss of mIoU (as a fraction) from torch to any later hop."""
    min_agreement: float = 0.999
    """Smallest share of valid pixels whose label agrees with torch."""
    fold: bool = True
    """Export the same function in less work: pyramids folded into heads (`teacher.fold`), transposed convolutions as
    plain ones (`student.subpixel`)."""
    opset: int = 20

    def __post_init__(self) -> None:
        _at_least(MIN_OPSET, "export", "opset", self.opset)


@dataclass(frozen=True)
class Int8Config:
    """The student in INT8, and the images that are left beside the bundles for it (see `deploy.evaluation.labeled_data`)."""

    enabled: bool = True
    max_drop: float = 0.005
    """Largest loss of mIoU (as a fraction) against float32. Layers stay in float until it is met."""
    min_agreement: float = 0.98
    """Smallest share of valid pixels whose label agrees with float32."""
    calibration_images: int = 128
    """Training images that the ranges of activations are taken from."""
    val_images: int = 64
    """Validation images that choose the calibrator and the layers that stay in float."""
    test_images: int = 256
    """Test images that judge."""
    qat_steps: int = 0
    """Steps of training in simulated INT8, the teacher still distilling, where quantization after training needs layers
    in float or misses the budget. 0 = never."""
    qat_lr: float = 1e-5

    def __post_init__(self) -> None:
        minima = {
            "calibration_images": MIN_CALIBRATION_IMAGES,
            "val_images": 1,
            "test_images": 1,
            "qat_steps": 0,
        }
        for name, minimum in minima.items():
            _at_least(minimum, "int8", name.replace("_", "-"), getattr(self, name))
        for name in ("max_drop", "min_agreement"):
            value, flag = getattr(self, name), name.replace("_", "-")
            _require(0 <= value <= 1, "int8", flag, f"{value}: is a fraction, from 0 to 1")
        _require(self.qat_lr > 0, "int8", "qat-lr", f"{self.qat_lr}: must be above 0")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run does, from data to verified bundle."""

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
    """Also train the student without distillation on equal steps, for comparison."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; auto: bf16 where the device computes in it, fp16 on older GPUs, else fp32."""
    tracker: Literal["none", "wandb", "mlflow"] = "none"
    """Experiment log beside the run's own files (`pip install 'edgedistill[wandb]'` or `[mlflow]`)."""
    seed: int = 0
    out: Path = Path("runs/run")
    """Folder of checkpoints, logs, bundles and the report."""
    resume: bool = False
    """Continue an interrupted run in `out`; finished stages are kept."""
