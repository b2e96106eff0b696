"""The commands on networks and files of weights."""

from tinyseg.cli.options import FORCE, JSON, RUN, Command, option, path

MODEL_COMMANDS = (
    Command(
        "models",
        "List networks and encoders: parameters, operations and source of each.",
        "They are chosen with the settings model.name and model.encoder.",
        (
            option("names", nargs="*", metavar="NAME", help="only these; default: all"),
            option(
                "--size", type=int, default=256, help="side of the image (default: %(default)s)"
            ),
            option("--channels", type=int, default=3, help="its channels (default: %(default)s)"),
            JSON,
            FORCE,
        ),
        "tinyseg models resnet18 --size 128",
    ),
    Command(
        "weights",
        "List the tensors in a file of weights: safetensors, .pth, .pt or .ckpt.",
        "PyTorch's files are read without PyTorch, and nothing in them is run.",
        (option("file", type=path, metavar="FILE", help="the file"), JSON, FORCE),
        "tinyseg weights run/checkpoints/best.safetensors",
    ),
    Command(
        "export",
        "Write the best weights of a run as safetensors with PyTorch's names.",
        "Prints the call that makes the network in PyTorch, of segmentation-models-pytorch or of "
        "milesial/Pytorch-UNet; normalize its images as the run does (mean and std in run.json).",
        (
            RUN,
            option("--to", choices=["torch"], default="torch", help="default: %(default)s"),
            option(
                "--out", writes=(".safetensors",), required=True, help="the safetensors to write"
            ),
            FORCE,
        ),
        "tinyseg export run --out torch.safetensors",
    ),
)
