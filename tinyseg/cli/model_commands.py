"""The commands on networks and files of weights."""

from tinyseg.cli.options import FORCE, JSON, Command, option, path

MODEL_COMMANDS = (
    Command(
        "weights",
        "List the tensors in a file of weights: safetensors, .pth, .pt or .ckpt.",
        "PyTorch's files are read without PyTorch, and nothing in them is run.",
        (option("file", type=path, metavar="FILE", help="the file"), JSON, FORCE),
        "tinyseg weights run/checkpoints/best.safetensors",
    ),
)
