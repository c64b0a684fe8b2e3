"""Networks of the package transformers: semantic heads, mask classification, and backbones with a head of our own."""

from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from deploy.errors import UserError
from teacher.external.hf_backbone import hf_backbone
from teacher.external.hf_files import first_line, quiet_transformers, read_config
from teacher.external.hf_weights import load_pretrained
from teacher.external.linear import LinearNetwork
from teacher.external.origin import adapt_first_convolution
from teacher.fitting import fitted, resized
from teacher.pspnet import Output, PSPNet

SQUARES = ("dpt", "eomt", "eomt_dinov3", "tipsv2_dpt")
"""Types of networks that take square images of one size only, `image_size` of their configuration."""
MULTIPLE = 32
"""Deepest stride of networks whose configuration has no larger patches."""
SMALLEST_PATCH = 8
"""Patches from this size on are those of a plain transformer; smaller ones those of a pyramid's first stage."""
LEAST_SCORE = 1e-6
Head = Literal["pyramid", "linear"]


def hf_network(
    name: str,
    in_channels: int,
    num_outputs: int,
    *,
    pretrained: bool = False,
    head: Head = "pyramid",
    head_channels: int = 512,
    dropout: float = 0.1,
    aux: bool = True,
) -> nn.Module:
    """Build a network of transformers.

    Args:
        name: a folder that `save_pretrained` has written, or a repository of the hub.
        in_channels: channels C of the normalized image; the first convolution is adapted, trained weights included.
        num_outputs: output maps K.
        pretrained: load its weights. A head for other classes stays new; `new_tensors` of the network names it.
        head: of a backbone: PSPNet's pyramid and heads, or `linear`: a batch norm and a 1×1 convolution.
        head_channels: of the pyramid's head.
        dropout: before the classifier of a backbone's head.
        aux: build the auxiliary head of the pyramid.

    Raises:
        UserError: transformers is not installed, the network is not found or not of a kind that segments, an option is
            not for it, or its weights do not fit.
    """
    _, config = read_config(name)
    kind = kind_of(name, config)
    if kind == "backbone":
        backbone = hf_backbone(name, config, in_channels, pretrained)
        if head == "linear":
            return LinearNetwork(backbone, num_outputs, dropout=dropout)
        return PSPNet(
            backbone, in_channels, num_outputs, head_channels=head_channels, dropout=dropout, aux=aux
        )
    if head != "pyramid" or head_channels != 512:
        raise UserError(f"hf/{name}: has a head of its own; leave out --*.head and --*.head-channels")
    config.num_labels = num_outputs
    network, new = _segmenter(name, kind, config, pretrained)
    adapt_first_convolution(network, in_channels)
    return HfSegmenter(network, _sizes(config), in_channels, new)


def kind_of(name: str, config: Any) -> Literal["semantic", "universal", "backbone"]:
    """What a configuration describes: a semantic head, mask classification, or a backbone.

    Raises:
        UserError: it is of no type that segments or gives feature maps.
    """
    auto = quiet_transformers(f"hf/{name}").models.auto.modeling_auto
    written = " ".join(config.architectures or ())
    universal = type(config) in auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    if universal and config.model_type in ("eomt", "eomt_dinov3", "mask2former", "maskformer"):
        return "universal"
    has_head = type(config) in auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    has_maps = type(config) in auto.MODEL_FOR_BACKBONE_MAPPING
    if has_head and ("SemanticSegmentation" in written or not has_maps):
        return "semantic"
    if has_maps:
        return "backbone"
    raise UserError(
        f"hf/{name}: a {config.model_type} neither segments nor gives feature maps; give one such as segformer,"
        " mask2former, eomt, dpt, upernet, dinov2 or dinov3_vit"
    )


class Sizes(NamedTuple):
    """The sizes of images that a network takes: one square, or else multiples."""

    square: int | None
    multiple: int


class HfSegmenter(nn.Module):
    """A network of transformers with a head for segmentation, as a network of this project.

    Args:
        network: returns `logits`, or `class_queries_logits` and `masks_queries_logits`.
        sizes: of the images that it takes; others are resized inside.
        in_channels: channels of the image.
        new_tensors: names of the tensors that its weights do not have for these classes.
    """

    def __init__(
        self, network: nn.Module, sizes: Sizes, in_channels: int, new_tensors: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.network, self.sizes, self.in_channels = network, sizes, in_channels
        self.new_tensors = new_tensors

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: normalized images, floating N×C×H×W.

        Returns:
            Logits N×K×h×w at the network's stride; no auxiliary logits; and the features `layer3` and `layer4`: the
            last two stages of a pyramid's encoder, or the blocks of a plain transformer at three quarters of its depth
            and at its end.
        """
        square, multiple = self.sizes
        x = resized(x, (square, square)) if square else fitted(x, multiple)
        output = self.network(pixel_values=x, output_hidden_states=True)
        if "logits" in output:
            logits = output["logits"]
        else:
            logits = semantic_logits(output["class_queries_logits"], output["masks_queries_logits"])
        return Output(logits, None, self._features(output, x))

    def _features(self, output: Any, x: Tensor) -> dict[str, Tensor]:
        states = output.get("encoder_hidden_states") or output.get("hidden_states") or ()
        if not states:
            return {}
        if all(state.ndim == 4 for state in states):
            return {"layer3": states[-2], "layer4": states[-1]}
        height, width = (side // self.sizes.multiple for side in x.shape[-2:])
        third = states[max(1, (len(states) - 1) * 3 // 4)]  # the first of them is the embedding
        return {"layer3": _as_map(third, height, width), "layer4": _as_map(states[-1], height, width)}


def semantic_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Logits of classes from mask classification (MaskFormer, arXiv:2107.06278, section 3.4).

    A pixel's score of class c is s_c = Σ_q softmax(classes_q)_c · sigmoid(mask_q), the last class ("no object") left
    out. The scores are no logits: log s is returned, with softmax(log s) = s / Σ s, the share of each class in them.

    Args:
        classes: N×Q×(K+1).
        masks: N×Q×h×w.

    Returns:
        N×K×h×w, in float32.
    """
    shares = classes.float().softmax(-1)[..., :-1]
    scores = (shares.transpose(1, 2) @ masks.float().sigmoid().flatten(2)).unflatten(2, masks.shape[-2:])
    return scores.clamp(min=LEAST_SCORE).log()


def _as_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens N×L×C → map N×C×h×w: the last h·w tokens are patches, those before are of classes, registers, queries."""
    return tokens[:, tokens.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))


def _sizes(config: Any) -> Sizes:
    patch = getattr(config, "patch_size", None) or 0
    multiple = patch if isinstance(patch, int) and patch >= SMALLEST_PATCH else MULTIPLE
    return Sizes(int(config.image_size) if config.model_type in SQUARES else None, multiple)


def _segmenter(name: str, kind: str, config: Any, pretrained: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """The network, and the names of those of its tensors that its weights do not have for these classes."""
    transformers = quiet_transformers(f"hf/{name}")
    family = {
        "semantic": transformers.AutoModelForSemanticSegmentation,
        "universal": transformers.AutoModelForUniversalSegmentation,
    }[kind]
    try:
        if not pretrained:
            return family.from_config(config), ()
    except Exception as error:  # whatever a configuration leads to
        raise UserError(f"hf/{name}: cannot be built from its configuration ({first_line(error)})") from error
    return load_pretrained(family, name, config)
