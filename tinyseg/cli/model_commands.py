"""The commands on networks and files of weights."""

from tinyseg.cli.options import FORCE, JSON, Command, option, path

MODEL_COMMANDS = (
    Command(
        "models",
        "List networks and encoders: parameters, operations and source of each.",
        "They are chosen with the settings model.name and model.encoder.",
        (
            option(
                "--size", type=int, default=256, help="side of the image (default: %(default)s)"
            ),
            option("--channels", type=int, default=3, help="its channels (default: %(default)s)"),
            JSON,
            FORCE,
        ),
        "tinyseg models --size 128",
    ),
    Command(
        "weights",
        "List the tensors in a file of weights: safetensors, .pth, .pt or .ckpt.",
        "PyTorch's files are read without PyTorch, and nothing in them is run.",
        (option("file", type=path, metavar="FILE", help="the file"), JSON, FORCE),
        "tinyseg weights run/checkpoints/best.safetensors",
    ),
)
