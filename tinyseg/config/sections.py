"""The sections of the settings: what each setting means, its default and what it may be."""

import math
from dataclasses import dataclass, fields

from tinyseg.errors import ConfigError

IGNORE = 255
"""The class id that losses and metrics ignore."""


def _check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{name}={value!r} cannot be used: it must be {rule}")


PRECISIONS = ("float32", "bfloat16", "float16")
"""Types of the images between convolutions; weights and sums are always float32."""


@dataclass(frozen=True)
class DataConfig:
    """Which images, at which size, and how they are split."""

    size: int = 128
    """Height and width of the network's input, in pixels."""
    fit: str = "resize"
    """How an image becomes size x size. resize: scale the longer side to size, keep the aspect
    ratio, pad the rest; pad: keep the scale and pad; tile: keep the scale and cut larger images
    into tiles."""
    overlap: float = 0.5
    """With fit=tile: overlap of neighboring tiles in prediction, as a fraction of the tile side."""
    color: str = "auto"
    """Color mode in which images are read: grey, rgb, or auto (grey if every image is grey)."""
    pages: str = "first"
    """TIFFs with several pages. first: only the first page is used; frames: each page is an image;
    channels: the pages are channels of one image. Channels that a file itself names (OME, ImageJ)
    are always channels."""
    range: str = "auto"
    """Pixel values that become black and white, as "LOW,HIGH"; auto: 8 bits are 0 to 255, other
    depths take one range for all images, chosen from their values."""
    exif: str = "auto"
    """How masks of images lie that EXIF turns, where both ways fit. upright: as the image is shown;
    stored: as its pixels are stored; auto: as they agree better with the images."""
    preprocess: str = ""
    """Filters applied to each image before resizing: "median(size=3)+clahe(tiles=8,clip=2)"."""
    normalize: str = "dataset"
    """dataset or image: subtract the mean and divide by the std of the training images or of each
    image; minmax: scale each image to [0, 1]; fixed(mean=[0.5],std=[0.25]): these values; none."""
    images: str = ""
    """Template of the image files, given with `masks`: "data/{name}.jpg"; fields {name}, {split},
    {group} and *. Empty: images and masks are found by their names and content."""
    masks: str = ""
    """Template of the mask files, such as "data/{name}_mask*.png"; also {class} and {object}."""
    strict: bool = False
    """Whether images without a mask and masks without an image are an error; else they are left out
    with a warning."""
    labels: str = "auto"
    """Mask values to class ids: "0:0,255:1" ("3:255" ignores value 3); annotations by name:
    "background:0,cell:1,dirt:ignore"; auto: scan the masks."""
    annotations: str = "auto"
    """Labels that are no masks: coco, labelme, labelme_folders, voc, label_studio,
    label_studio_sorted, yolo, imagej, numpy, or a file in the folder; auto: what is found;
    none: masks only."""
    split_file: str = ""
    """JSON file with a saved split or saved folds; empty: split by seed and fractions."""
    val_fraction: float = 0.2
    """Fraction of the images held out for validation."""
    test_fraction: float = 0.0
    """Fraction of the images held out for testing."""
    split_seed: int = 0
    """Seed of the split."""
    stratify: bool = True
    """Give each part its share of empty masks and of small, large and rare objects."""
    folds: int = 0
    """Number of cross-validation folds; 0: no folds, hold out `val_fraction`."""
    fold: int = 0
    """The fold used for validation, from 0."""
    groups: str = ""
    """Regular expression for image names; images with the same match of its first group stay in the
    same part of the split."""
    max_train_images: int = 0
    """Train on at most this many images; 0: on all."""

    def __post_init__(self) -> None:
        _check(16 <= self.size <= 4096, "data.size", self.size, "16 to 4096 pixels")
        ways = ("auto", "upright", "stored")
        _check(self.exif in ways, "data.exif", self.exif, f"one of {', '.join(ways)}")
        fits = ("resize", "pad", "tile")
        _check(self.fit in fits, "data.fit", self.fit, f"one of {', '.join(fits)}")
        _check(0 <= self.overlap <= 0.9, "data.overlap", self.overlap, "a fraction, 0 to 0.9")
        _check(self.color in ("auto", "grey", "rgb"), "data.color", self.color, "auto, grey or rgb")
        pages = ("first", "frames", "channels")
        _check(self.pages in pages, "data.pages", self.pages, f"one of {', '.join(pages)}")
        _check(
            0 <= self.val_fraction < 1,
            "data.val_fraction",
            self.val_fraction,
            "at least 0 and below 1",
        )
        room, rule = 1 - self.val_fraction, "at least 0, and below 1 together with val_fraction"
        _check(0 <= self.test_fraction < room, "data.test_fraction", self.test_fraction, rule)
        _check(
            self.folds == 0 or self.folds >= 2, "data.folds", self.folds, "0 (off) or at least 2"
        )
        count = self.folds or 1000  # a file of saved folds has its own number
        _check(0 <= self.fold < count, "data.fold", self.fold, f"0 to {count - 1}")
        _check(
            self.max_train_images >= 0,
            "data.max_train_images",
            self.max_train_images,
            "0 (all) or a number of images",
        )


NETWORKS = ("unet", "unet++", "fpn", "deeplabv3+", "transunet", "resunet")
ENCODERS = (
    *("resnet18", "resnet34", "resnet50", "mobilenet_v2"),
    *("efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3"),
    *("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"),
)


@dataclass(frozen=True)
class ModelConfig:
    """The settings of the network: which one, and how large."""

    name: str = "unet"
    """The network: unet, unet++, fpn, deeplabv3+, transunet or resunet; `tinyseg models` describes
    them."""
    encoder: str = "auto"
    """The encoder: resnet18, resnet34, resnet50, mobilenet_v2, efficientnet-b0 to -b3 or
    efficientnet-lite0 to -lite2; auto: the U-Net's own, and resnet34 for other networks."""
    output_stride: int = 16
    """For deeplabv3+: how many times smaller the encoder's last features are, 16 or 8."""
    freeze: bool = False
    """Whether weights and statistics of the encoder stay as they are."""
    base_channels: int = 16
    """For the U-Net's own encoder and resunet (nnU-Net's has 32): channels of the first level; each
    level down doubles them."""
    depth: int = 4
    """For the U-Net's own encoder and resunet (nnU-Net's: 5): number of times the resolution is
    halved."""
    upsample: str = "transpose"
    """For the U-Net's own encoder: how the decoder doubles the resolution: transpose, bilinear or
    nearest."""
    norm: str = "batch"
    """For the U-Net's own encoder: normalization layers: batch, group, instance or none."""
    attention: bool = False
    """For the U-Net's own encoder: whether to use attention gates on the skip connections."""
    dropout: float = 0.0
    """Probability of dropping a channel in training: of the deepest level (unet, unet++), or of the
    pyramid's output (fpn, where 0.2 is usual, and deeplabv3+, 0.5)."""
    stochastic_depth: float = 0.0
    """Probability of leaving out the encoder's last residual block in training; that of the blocks
    before it grows from 0 (efficientnet: 0.2 in its paper)."""
    head: str = "auto"
    """Output of the network: sigmoid (1 channel), softmax (one channel per class), or auto: sigmoid
    for two classes, softmax for more."""
    weights: str = ""
    """File of weights to start from: safetensors, or PyTorch's .pth, .pt or .ckpt, of tinyseg,
    segmentation-models-pytorch, torchvision, timm or milesial/Pytorch-UNet; see `tinyseg weights`.
    imagenet: those of the encoder's package (efficientnet-lite0 to -lite2, extra `pretrained`).
    Empty: random weights."""

    def __post_init__(self) -> None:
        ups, norms = ("transpose", "bilinear", "nearest"), ("batch", "group", "instance", "none")
        _check(
            1 <= self.base_channels <= 256,
            "model.base_channels",
            self.base_channels,
            "1 to 256 channels",
        )
        _check(1 <= self.depth <= 6, "model.depth", self.depth, "1 to 6 levels")
        _check(self.upsample in ups, "model.upsample", self.upsample, f"one of {', '.join(ups)}")
        _check(self.norm in norms, "model.norm", self.norm, f"one of {', '.join(norms)}")
        _check(0 <= self.dropout < 1, "model.dropout", self.dropout, "a probability below 1")
        depth, rule = self.stochastic_depth, "a probability below 1"
        _check(0 <= depth < 1, "model.stochastic_depth", depth, rule)
        heads = ("auto", "sigmoid", "softmax")
        _check(self.head in heads, "model.head", self.head, f"one of {', '.join(heads)}")
        _check(self.name in NETWORKS, "model.name", self.name, f"one of {', '.join(NETWORKS)}")
        encoders = ("auto", *ENCODERS)
        _check(
            self.encoder in encoders, "model.encoder", self.encoder, f"one of {', '.join(encoders)}"
        )
        _check(self.output_stride in (8, 16), "model.output_stride", self.output_stride, "8 or 16")
        self._check_use()

    @property
    def plain(self) -> bool:
        """Whether it is the U-Net with its own encoder."""
        return self.name == "unet" and self.encoder == "auto"

    @property
    def used(self) -> tuple[str, ...]:
        """The settings that this network goes by, besides head and weights."""
        if self.plain:
            return ("base_channels", "depth", "upsample", "norm", "attention", "dropout")
        if self.name == "resunet":
            return ("base_channels", "depth", "dropout")
        own = ("output_stride",) if self.name == "deeplabv3+" else ()
        return ("encoder", "freeze", "stochastic_depth", "dropout", *own)

    @property
    def larger(self) -> str:
        """The setting that makes the network larger, for advice."""
        if "base_channels" in self.used:
            return f"model.base_channels={2 * self.base_channels}"
        return "model.encoder=resnet50"

    def _check_use(self) -> None:
        """Refuse what the network would ignore."""
        for name in {f.name for f in fields(self)} - {"name", "head", "weights", *self.used}:
            value = getattr(self, name)
            if value != getattr(ModelConfig, name):
                raise ConfigError(
                    f"model.{name}={value!r} has no effect on model.name={self.name} with "
                    f"model.encoder={self.encoder}: omit it, or choose another network (`tinyseg "
                    "models`)"
                )


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained: loss, optimizer, augmentation, and when to stop."""

    epochs: int = 30
    """Passes over the training images (ignored if `phases` is set)."""
    batch_size: int = 4
    """Images per step."""
    loss: str = "auto"
    """A loss or a weighted sum: "0.7*focal(alpha=0.9,gamma=2)+0.3*bce"; auto: half cross-entropy,
    half Dice."""
    optimizer: str = "adam(lr=0.001)"
    """sgd(lr,momentum,nesterov,weight_decay), adam(lr,beta1,beta2,eps,weight_decay) or adamw; each
    also takes encoder, a factor of the learning rate for the encoder: "adam(encoder=0.1)"."""
    schedule: str = "cosine(warmup=0.05)"
    """Learning rate over time: constant, cosine, poly(power) or plateau(factor,patience); warmup is
    a fraction of all steps."""
    augment: str = "none"
    """Random transforms: none, light, medium, strong, trivial, or "flip+0.5*rotate(degrees=15)"."""
    grad_clip: float = 0.0
    """Maximum norm of the gradients of all weights together (gradient clipping); 0: no clipping."""
    precision: str = "float32"
    """Mixed precision, for GPUs: float32, bfloat16 or float16; weights stay float32."""
    loss_scale: float = 0.0
    """With precision=float16: factor of the loss that prevents underflow of gradients, 1 to 2^24;
    0: adapted in training, starting at 2^16."""
    phases: str = ""
    """Several losses, one after the other: "bce: 30 epochs; dice: 10 epochs from best"."""
    early_stopping: int = 0
    """Stop after this many epochs without a better validation Dice; 0: never."""
    threshold: float = 0.0
    """A pixel is foreground if its probability is at least this (sigmoid head); 0: use the best
    threshold on the validation images if it clearly gains over 0.5, else 0.5."""
    postprocess: str = "none"
    """Post-processing of predicted masks: "fill_holes+min_size(pixels=64)", "largest"; auto: the
    steps that raise the Dice on the validation images, if any do."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, dropout and augmentation."""

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "train.epochs", self.epochs, "at least 1")
        _check(self.batch_size >= 1, "train.batch_size", self.batch_size, "at least 1")
        _check(
            0 <= self.grad_clip < math.inf,
            "train.grad_clip",
            self.grad_clip,
            "0 (off) or a positive norm",
        )
        one_of = f"one of {', '.join(PRECISIONS)}"
        _check(self.precision in PRECISIONS, "train.precision", self.precision, one_of)
        scales = self.loss_scale == 0 or 1 <= self.loss_scale <= 2**24
        _check(scales, "train.loss_scale", self.loss_scale, "0 (adapted in training), or 1 to 2^24")
        fits = self.loss_scale == 0 or self.precision == "float16"
        rule = "0 unless train.precision is float16"
        _check(fits, "train.loss_scale", self.loss_scale, rule)
        _check(
            self.early_stopping >= 0,
            "train.early_stopping",
            self.early_stopping,
            "0 (off) or a number of epochs",
        )
        ok = 0 <= self.threshold < 1
        _check(
            ok,
            "train.threshold",
            self.threshold,
            "0 (best on the validation images), or between 0 and 1",
        )
        _check(0 <= self.seed < 2**31, "train.seed", self.seed, "0 to 2^31 - 1")
