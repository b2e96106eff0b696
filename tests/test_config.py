import random
import re
from pathlib import Path

import pytest

from tinyseg.config import SECTIONS, Config, DataConfig, ModelConfig, TrainConfig
from tinyseg.errors import ConfigError


def load(tmp_path: Path, content: str | bytes) -> Config:
    path = tmp_path / "config.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Config.load(path)


def test_defaults_go_round_and_an_empty_file_means_them(tmp_path: Path) -> None:
    assert load(tmp_path, Config().to_toml()) == Config()
    assert load(tmp_path, "") == Config()
    assert load(tmp_path, "[model]\nbase_channels = 8\n") == Config(
        model=ModelConfig(base_channels=8)
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a'b", 'a"b', "back\\slash\\", "C:\\new\\table", "tab\tnew\nline\r\x00\x1f\x7f"),
        *("grüße 日本 😀", "\u2028\x85\ufeff", "#no comment", "[section]", "a = 1", "'''", '"""'),
        r"^(\d+)_.*\.png$",
    ],
)
def test_any_text_goes_round(tmp_path: Path, text: str) -> None:
    config = Config(data=DataConfig(split_file=text, groups=text), train=TrainConfig(loss=text))
    assert load(tmp_path, config.to_toml()) == config


def test_all_kinds_of_numbers_go_round(tmp_path: Path) -> None:
    for clip in (0.0, 1.0, 0.1, 1e-7, 1e22, 5e-324, 1.7976931348623157e308):
        config = Config(
            model=ModelConfig(attention=True, dropout=1 / 3),
            train=TrainConfig(grad_clip=clip, seed=2**31 - 1, epochs=10**30),
        )
        assert load(tmp_path, config.to_toml()) == config


def test_a_whole_number_stands_for_a_float(tmp_path: Path) -> None:
    config = load(tmp_path, "[train]\ngrad_clip = 1\n")
    assert config.train.grad_clip == 1.0
    assert type(config.train.grad_clip) is float


def test_overrides_by_full_and_bare_keys() -> None:
    config = Config().override(
        [
            *("model.base_channels=32", "depth = 3", "train.grad_clip=0.5", "attention=TRUE"),
            *("loss=0.7*focal(alpha=0.9)+0.3*bce", "optimizer='sgd(lr=0.1)'", 'groups="(.*)_"'),
        ]
    )
    assert (config.model.base_channels, config.model.depth, config.train.grad_clip) == (32, 3, 0.5)
    assert config.model.attention is True
    assert config.train.loss == "0.7*focal(alpha=0.9)+0.3*bce"
    assert (config.train.optimizer, config.data.groups) == ("sgd(lr=0.1)", "(.*)_")
    assert Config().override([]) == Config()
    assert config.override(["attention=false"]).model.attention is False
    assert config.override(["grad_clip=1"]).train.grad_clip == 1.0
    assert config.override(["base_channels=4", "base_channels=8"]).model.base_channels == 8


def test_overrides_are_checked_together_not_one_by_one() -> None:
    for order in (
        ["val_fraction=0.05", "test_fraction=0.9"],
        ["test_fraction=0.9", "val_fraction=0.05"],
    ):
        config = Config().override(order)
        assert (config.data.val_fraction, config.data.test_fraction) == (0.05, 0.9)


def test_bare_keys_are_unique() -> None:
    names = [name for section in SECTIONS.values() for name in section.__dataclass_fields__]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("base_channels", "'base_channels' is not key=value"),
        ("", "'' is not key=value"),
        (
            "model.bases=3",
            "unknown setting 'model.bases'; did you mean model.base_channels.$",
        ),
        ("nothing=3", "unknown setting 'nothing'; known: data.size, .* model.base_channels,"),
        ("other.base=3", "unknown setting 'other.base'"),
        ("train.base=3", "unknown setting 'train.base'"),
        ("=3", "unknown setting ''"),
        ("base_channels=3.5", r"model\.base_channels='3\.5' is not a whole number"),
        ("base_channels=", r"model\.base_channels='' is not a whole number"),
        ("grad_clip=much", r"train\.grad_clip='much' is not a number"),
        ("attention=1", r"model\.attention='1' is not true or false"),
        ("base_channels=" + "9" * 5000, "model.base_channels='99"),
        ("groups=a\udcff", r"data\.groups='a\\udcff' is not text: it has bytes that are not UTF-8"),
    ],
)
def test_overrides_that_cannot_be_read(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config().override([assignment])


@pytest.mark.parametrize(
    ("key", "values", "rule"),
    [
        ("data.size", (15, 4097, -1), "16 to 4096 pixels"),
        ("data.fit", ("crop", ""), "one of resize, pad, tile"),
        ("data.overlap", (-0.1, 0.95), "a fraction, 0 to 0.9"),
        ("data.color", ("gray", "RGB"), "auto, grey or rgb"),
        ("data.val_fraction", (-0.1, 1.0, "nan", "inf"), "at least 0 and below 1"),
        (
            "data.test_fraction",
            (-0.1, 0.8, "nan"),
            r"at least 0, and below 1 together with val_fraction",
        ),
        ("data.max_train_images", (-1,), r"0 \(all\) or a number"),
        ("model.base_channels", (0, 257), "1 to 256 channels"),
        ("model.depth", (0, 7), "1 to 6 levels"),
        ("model.upsample", ("pixelshuffle",), "one of transpose, bilinear, nearest"),
        ("model.norm", ("layer",), "one of batch, group, instance, none"),
        ("model.dropout", (-0.1, 1.0, "nan"), "a probability below 1"),
        ("model.head", ("tanh",), "one of auto, sigmoid, softmax"),
        ("train.epochs", (0, -3), "at least 1"),
        ("train.batch_size", (0,), "at least 1"),
        ("train.grad_clip", (-1.0, "nan", "inf"), r"0 \(off\) or a positive norm"),
        ("train.early_stopping", (-1,), r"0 \(off\) or a number of epochs"),
        ("train.threshold", (-0.1, 1.0, "nan"), r"0 \(best on the .*\), or between 0 and 1"),
        ("train.seed", (-1, 2**31), r"0 to 2\^31 - 1"),
    ],
)
def test_every_range_names_key_value_and_rule(
    tmp_path: Path, key: str, values: tuple[object, ...], rule: str
) -> None:
    section, name = key.split(".")
    kind = type(getattr(getattr(Config(), section), name))
    for value in values:
        shown = re.escape(repr(kind(value)))
        message = f"{key}={shown} cannot be used: it must be {rule}"
        with pytest.raises(ConfigError, match=f"^{message}"):
            SECTIONS[section](**{name: kind(value)})
        with pytest.raises(ConfigError, match=f"^{message}"):
            Config().override([f"{key}={value}"])
        toml = f'"{value}"' if kind is str else str(value)
        with pytest.raises(ConfigError, match=rf"config\.toml: {message}"):
            load(tmp_path, f"[{section}]\n{name} = {toml}\n")


@pytest.mark.parametrize(
    ("edge", "value"),
    [
        *(
            ("size", 16),
            ("size", 4096),
            ("val_fraction", 0.0),
            ("base_channels", 1),
            ("base_channels", 256),
            ("depth", 6),
        ),
        *(("dropout", 0.999), ("epochs", 1), ("grad_clip", 0.0), ("seed", 0), ("threshold", 1e-9)),
    ],
)
def test_the_edges_of_the_ranges_are_inside(edge: str, value: object) -> None:
    assert Config().override([f"{edge}={value}"])


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[other]\nx = 1", r"unknown section \[other\]; known: data, model, train"),
        ("base = 3", r"unknown section \[base\]"),
        ("[[model]]\nbase_channels = 3", r"unknown section \[model\]"),
        ("[model]\nwidth = 3", r"unknown setting 'model\.width'; known: .*model\.base_channels"),
        ("[model.base_channels]\nx = 3", r"model\.base_channels=.* is not a whole number"),
        ("[model]\nbase_channels = 3.0", r"model\.base_channels=3\.0 is not a whole number"),
        ("[model]\nbase_channels = true", r"model\.base_channels=True is not a whole number"),
        ("[model]\nattention = 1", r"model\.attention=1 is not true or false"),
        ("[train]\ngrad_clip = true", r"train\.grad_clip=True is not a number"),
        ('[train]\ngrad_clip = "1"', r"train\.grad_clip='1' is not a number"),
        ("[train]\nloss = 3", r"train\.loss=3 is not text"),
        ("[train]\nloss = 1979-05-27", r"train\.loss=.* is not text"),
        ("[train]\nloss = [1, 2]", r"train\.loss=\[1, 2\] is not text"),
        ("[model]\nbase_channels = 3\nbase_channels = 4", "not a readable TOML file"),
        ("[model\n", "not a readable TOML file"),
        ("x = 1979-02-30", "not a readable TOML file"),
        (b"\xff\xfe[\x00m\x00", "not a readable TOML file"),
        (b"\x00" * 1000, "not a readable TOML file"),
        ("x = " + "[" * 100_000, "not a readable TOML file"),
        ("x = " + "{a=" * 100_000, "not a readable TOML file"),
        ("[train]\nseed = " + "9" * 5000, "config.toml: "),
        ("[train]\nseed = 0x" + "f" * 5000, "config.toml: "),
        ("[train]\ngrad_clip = 1" + "0" * 400, "config.toml: "),
        ("[train]\ngrad_clip = inf", "config.toml: train.grad_clip=inf cannot be used"),
    ],
)
def test_malicious_and_wrong_files_are_config_errors(
    tmp_path: Path, toml: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, toml)
    assert "config.toml" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file; give an existing"):
        Config.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not a readable TOML file"):
        Config.load(tmp_path)


def test_damaged_files_never_raise_anything_else(tmp_path: Path) -> None:
    good, draw = Config().to_toml().encode(), random.Random(0)
    for _ in range(300):
        content = bytearray(good)
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(content))
            content[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        try:
            load(tmp_path, bytes(content))
        except ConfigError:
            continue
    for _ in range(50):
        with pytest.raises(ConfigError):
            load(tmp_path, b"x" + draw.randbytes(draw.randrange(1, 200)))


# Names of version 0.1, and names that nobody has


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        *[("data.limit", "data.max_train_images", 3), ("val", "data.val_fraction", 0.3)],
        *[("data.test", "data.test_fraction", 0.1), ("base", "model.base_channels", 3)],
        *[("model.up", "model.upsample", "nearest"), ("train.batch", "train.batch_size", 3)],
        *[("clip", "train.grad_clip", 0.5), ("patience", "train.early_stopping", 3)],
    ],
)
def test_a_setting_under_its_old_name_is_taken_and_the_new_one_named(
    tmp_path: Path, old: str, new: str, value: object
) -> None:
    section, name = new.split(".")
    with pytest.warns(FutureWarning, match=f"^the setting {old} is now called {new}$"):
        config = Config().override([f"{old}={value}"])
    assert getattr(getattr(config, section), name) == value
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml().replace(f"\n{name} = ", f"\n{old.rpartition('.')[2]} = "))
    assert Config.load(path, warn=False) == config  # as an old run folder is opened
    with pytest.warns(FutureWarning, match=f"is now called {new}$"):
        assert Config.load(path) == config


def test_an_old_value_is_taken(tmp_path: Path) -> None:
    assert Config().override(["data.fit=window"]).data.fit == "tile"
    assert load(tmp_path, '[data]\nfit = "window"\n').data.fit == "tile"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[("epoch", "train.epochs"), ("batchsize", "train.batch_size")],
        *[("augmentation", "train.augment"), ("model.bse", "model.base_channels")],
        *[("treshold", "train.threshold"), ("lr", 'train.optimizer="adam.lr=0.001."')],
    ],
)
def test_a_misspelled_setting_is_an_error_with_the_one_that_was_meant(
    written: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting '{written}'; .*{meant}"):
        Config().override([f"{written}=1"])


def test_settings_as_keywords_have_the_same_checks() -> None:
    config = Config().with_settings(epochs=3, size=64, loss="dice", val_fraction=0)
    assert (config.train.epochs, config.data.size, config.train.loss) == (3, 64, "dice")
    assert type(config.data.val_fraction) is float
    with pytest.raises(ConfigError, match=r"train\.epochs=0 cannot be used"):
        Config().with_settings(epochs=0)
    with pytest.raises(ConfigError, match=r"train\.epochs='3' is not a whole number"):
        Config().with_settings(epochs="3")
    with pytest.raises(ConfigError, match=r"unknown setting 'epoch'; did you mean train\.epochs"):
        Config().with_settings(epoch=3)
