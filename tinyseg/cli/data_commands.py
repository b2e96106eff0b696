"""The commands for datasets, the machine, the cache and the documentation."""

from tinyseg.cli.options import DATA, FORCE, JSON, SETTINGS, Command, option, path

DATA_COMMANDS = (
    Command(
        "data download",
        "Download a published dataset.",
        "Each file is verified by its SHA-256 digest.",
        (
            option("name", help="pets, busi, isbi2012, camvid or dsb2018"),
            option("folder", type=path, help="the folder to download it to"),
        ),
        "tinyseg data download isbi2012 data/isbi2012",
    ),
    Command(
        "data check",
        "Check a dataset for problems before training.",
        "Finds unreadable and duplicate files, masks that do not match their images, leaks "
        "between splits and more. Exit code 1 when it finds an error.",
        (
            DATA,
            option("--json", writes=(), help="write all findings to a JSON file"),
            option(
                "--save-split", writes=(), help="write the split (or folds), for data.split_file"
            ),
            FORCE,
            *SETTINGS,
        ),
        "tinyseg data check cells --json check.json --save-split split.json",
    ),
    Command(
        "data layout",
        "Show which files of a folder are taken for images and masks, and why.",
        "Prints the groups of files, every way to pair them, and the settings data.images and "
        "data.masks that choose one. Nothing is changed.",
        (option("folder", type=path, help="the folder with images and masks"),),
        "tinyseg data layout cells",
    ),
    Command(
        "data stats",
        "Describe a dataset, or compare two.",
        "Prints gray levels, foreground, object counts and sizes; for two datasets, for example "
        "real and simulated, also how much they differ.",
        (
            DATA,
            option("other", nargs="?", help="a second dataset to compare with"),
            option("--picture", writes=(".png",), help="draw the distributions (PNG)"),
            JSON,
            FORCE,
            *SETTINGS,
        ),
        'tinyseg data stats cells "sim:cells?n=16&size=64&seed=9" --json stats.json',
    ),
    Command(
        "data preview",
        "Draw images with every augmentation, alone and combined, as one PNG.",
        "Before training, check that each label still fits its image and that the images look "
        "plausible.",
        (
            DATA,
            option("--out", writes=(".png",), required=True, help="the PNG to write"),
            option(
                "--images",
                nargs="+",
                default=["3"],
                metavar="N|NAME",
                help="number of images, or image names; default: 3",
            ),
            FORCE,
            *SETTINGS,
        ),
        "tinyseg data preview cells --out preview.png --set size=64 augment=light",
    ),
    Command(
        "info",
        "Print the device, the compiler, versions and the cache folder.",
        "The line `because` gives the reason for the choice of device and compiler.",
        (),
        "tinyseg info",
    ),
    Command(
        "cache info",
        "Print the number, size and location of the cached files.",
        "The cache contains compiled training steps and decoded images.",
        (),
        "tinyseg cache info",
    ),
    Command(
        "cache clear",
        "Delete all cached files.",
        "The next start is slower, because it compiles and decodes again. Results do not change.",
        (),
        "tinyseg cache clear",
    ),
    Command(
        "help",
        "Print a page of the documentation.",
        "Without a topic, list all pages. A topic can also be the name of a command.",
        (option("topic", nargs="*", help="the page to print"),),
        "tinyseg help",
    ),
)
