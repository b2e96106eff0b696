"""The table of all commands: what each does, its options and an example."""

from tinyseg.cli.data_commands import DATA_COMMANDS
from tinyseg.cli.model_commands import MODEL_COMMANDS
from tinyseg.cli.run_commands import RUN_COMMANDS

GROUPS = {
    "data": "Download, check, compare and preview datasets.",
    "cache": "Show or clear the cache, which makes later starts faster.",
}
COMMANDS = (*RUN_COMMANDS, *MODEL_COMMANDS, *DATA_COMMANDS)
