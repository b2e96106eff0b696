"""The public dataset: arrays, indexing, settings, parts and batches."""

import numpy as np
import pytest

import tinyseg
from tinyseg.config import DataConfig
from tinyseg.data import Dataset, InputPipeline, epoch_order, find_scale
from tinyseg.errors import ConfigError, DataError


def images(count=6, shape=(20, 24), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def masks(count=6, shape=(20, 24), value=1):
    label = np.zeros((count, *shape), np.uint8)
    label[:, :10] = value
    return label


def test_arrays_are_samples_by_index_name_and_in_order():
    pixels, labels = images(), masks()
    data = tinyseg.Dataset.from_arrays(pixels, labels, size=32, val_fraction=0.5)
    assert data.names == tuple(f"image_{i}" for i in range(6))
    assert len(data) == 6
    assert (data.classes, data.channels, data.class_names) == (2, 1, ("class 0", "class 1"))
    np.testing.assert_array_equal(data[2].image, pixels[2][..., None])
    np.testing.assert_array_equal(data["image_2"].label, labels[2])
    assert data[-1] is data[5]
    assert [sample.name for sample in data] == list(data.names)
    assert data[np.int64(1)].name == "image_1"
    assert data[0].files == ()
    assert len(data.split.train) == len(data.split.val) == 3
    with pytest.raises(IndexError):
        data[6]
    with pytest.raises(DataError, match="arrays: no sample 'zz'"):
        data["zz"]


def test_the_users_arrays_stay_his_own():
    pixels, labels = images(), masks()
    before = pixels.copy()
    data = Dataset.from_arrays(pixels, labels)
    with pytest.raises(ValueError, match="read-only"):
        data[0].image[:] = 0
    pixels[0, 0, 0] += 1
    labels[0, 0, 0] = 0
    np.testing.assert_array_equal(before[1], data[1].image[..., 0])


@pytest.mark.parametrize("name", ["names", "folder"])
def test_arrays_are_read_like_the_files_that_hold_them(folder, name):
    pixels, labels = images(4, (20, 24, 3)), masks(4, value=255)
    for index in range(4):
        folder.save(f"images/a{index}.png", pixels[index])
        folder.save(f"masks/a{index}.png", labels[index])
    names = [f"a{index}" for index in range(4)]
    arrays = Dataset.from_arrays(list(pixels), list(labels), names, size=16)
    files = Dataset(folder.path, size=16)
    assert (arrays.label_map, arrays.channels) == (files.label_map, files.channels)
    assert (arrays.names, arrays.split) == (files.names, files.split)
    for one, other in zip(arrays.batches("train", 2), files.batches("train", 2), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_deep_and_float_images_and_bool_masks():
    deep = images().astype(np.uint16) * 257
    label = masks().astype(bool)
    expected = (deep[1] / 65535).astype(np.float32)
    for pixels in (deep, deep / 65535, (deep / 65535).astype(np.float32)):
        data = Dataset.from_arrays(pixels, label)
        assert data[1].image.dtype == np.float32
        np.testing.assert_array_equal(data[1].image[..., 0], expected)
        np.testing.assert_array_equal(data[1].label, label[1])


def test_images_may_differ_in_size_and_masks_in_type():
    shapes = [(20, 24), (30, 17), (18, 18)]
    pixels = [images(1, shape)[0] for shape in shapes]
    labels = [masks(1, shape)[0].astype(dtype) for shape, dtype in zip(shapes, "iqB", strict=True)]
    data = Dataset.from_arrays(pixels, labels)
    assert [data.size(index) for index in range(3)] == shapes
    assert data.class_pixels(0) == {0: 240, 1: 240}
    gray_and_color = Dataset.from_arrays([images(1)[0], images(1, (20, 24, 3))[0]], masks(2))
    assert gray_and_color.channels == 3
    assert gray_and_color[0].image.shape == (20, 24, 3)


def test_class_names_and_values_beyond_a_byte():
    labels = masks().astype(np.int64)
    labels[:, 5:] *= 300
    labels[:, 15:] = 2
    data = Dataset.from_arrays(images(), labels, class_names=("none", "cell", "dust", "rim"))
    assert data.label_map == {0: 0, 1: 1, 2: 2, 300: 3}
    assert data.class_names[3] == "rim"
    data = Dataset.from_arrays(images(), labels, labels="0:0,1-300:1")
    assert data.classes == 2
    assert data[0].label.max() == 1
    with pytest.raises(DataError, match=r"masks\[0\]: mask values 2, 300 have no class"):
        Dataset.from_arrays(images(), labels, labels="0:0,1:1")


@pytest.mark.parametrize(
    ("pixels", "labels", "more", "said"),
    [
        (images(3), masks(2), {}, "3 images and 2 masks; give one mask for each image"),
        ([], [], {}, "0 images and 0 masks"),
        (images(2), masks(2, (24, 20)), {}, r"masks\[0\]: the mask is 24 x 20 .* but images"),
        (images(2, (3, 20, 24)), masks(2), {}, r"give \(H, W\) or \(H, W, channels\)"),
        (images(2, (20, 24, 1025)), masks(2), {}, r"images\[0\] has the shape \(20, 24, 1025\)"),
        (images(2).astype(int), masks(2), {}, r"images\[0\] is int64; give uint8, uint16"),
        (images(2) / 100, masks(2), {}, r"values from 0 to 2\.55; floats must be from 0 to 1"),
        (images(2) * np.nan, masks(2), {}, "values from nan to nan"),
        (images(2), masks(2) * 1.5 - 1, {}, r"masks\[0\] has values .* fractions from 0 to 1"),
        (images(2), masks(2).astype(str), {}, r"masks\[0\] is <U.*; give integers or bools"),
        (images(2), masks(2)[..., None], {}, r"masks\[0\] has the shape \(20, 24, 1\)"),
        (images(2), masks(2).astype(int) - 1, {}, r"masks\[0\] has values from -1 to 0"),
        (images(2), masks(2) * 0, {}, "all 2 masks are empty"),
        (images(2), masks(2), {"names": ["a"]}, "1 names for 2 images"),
        (images(2), masks(2), {"names": [1, 2]}, "give one text for each"),
        (images(2), masks(2), {"names": ["a", "a"]}, "names that appear twice: a"),
        (images(2), masks(2), {"class_names": ["a"]}, "1 class names for 2 classes"),
    ],
)
def test_what_cannot_be_a_dataset(pixels, labels, more, said):
    with pytest.raises(DataError, match=said) as error:
        Dataset.from_arrays(pixels, labels, **more)
    assert "\n" not in str(error.value)


def test_settings_are_checked_as_in_a_file(folder):
    folder.pairs(5)
    data = Dataset(folder.path, DataConfig(size=32), val_fraction=0.4, split_seed=3)
    assert data.config == DataConfig(size=32, val_fraction=0.4, split_seed=3)
    for settings, said in [
        ({"sise": 3}, "unknown setting 'data.sise'; did you mean data.size"),
        ({"epochs": 3}, "unknown setting 'data.epochs'"),
        ({"size": "32"}, "data.size='32' is not a whole number"),
        ({"size": 3}, "data.size=3 cannot be used"),
    ]:
        with pytest.raises(ConfigError, match=said):
            Dataset(folder.path, **settings)


def test_a_dataset_is_opened_again_with_other_settings(folder):
    folder.pairs(5)
    data = Dataset(folder.path, size=32)
    again = Dataset(data, channels=3, label_map={0: 1, 255: 0}, split_seed=1)
    assert (again.config.size, again.config.split_seed, again.channels) == (32, 1, 3)
    assert again[0].label[0, 0] == 1
    assert again.fingerprint() == data.fingerprint()
    arrays = Dataset((images(), masks()))
    assert Dataset(arrays, label_map={0: 1, 1: 0})[0].label[0, 0] == 0
    assert Dataset(arrays).fingerprint() == arrays.fingerprint()
    assert Dataset((images(seed=1), masks())).fingerprint() != arrays.fingerprint()
    assert Dataset((images(), masks(value=2))).fingerprint() != arrays.fingerprint()


def test_batches_are_those_of_training():
    data = Dataset.from_arrays(images(9), masks(9), size=32, val_fraction=0.3)
    names = data.split.train
    pipeline = InputPipeline(
        data.config, find_scale(data.config, [data[name].image for name in names], 1)
    )
    tiles = [pipeline.tile(data[name].image) for name in names]
    found = list(data.batches("train", batch_size=4, seed=5, epochs=2))
    orders = [*epoch_order(len(names), 4, 5, 0), *epoch_order(len(names), 4, 5, 1)]
    assert len(found) == len(orders) == 4
    for (image, label), order in zip(found, orders, strict=True):
        np.testing.assert_array_equal(image, pipeline.to_batch([tiles[i] for i in order]))
        assert (image.shape, image.dtype) == ((4, 1, 32, 32), np.float32)
        assert (label.shape, label.dtype) == ((4, 32, 32), np.uint8)
        assert set(np.unique(label)) == {0, 1, 255}  # ignored beside the image
    again = list(data.batches("train", batch_size=4, seed=5, epochs=2))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(found, again, strict=True))


def test_batches_to_measure_on_hold_each_tile_once():
    data = Dataset.from_arrays(
        images(8, (40, 20)), masks(8, (40, 20)), size=16, fit="tile", val_fraction=0.5
    )
    batches = list(data.batches("val", batch_size=8))
    assert [len(image) for image, _ in batches] == [8, 8, 8]  # 3 x 2 tiles of 4 images
    assert sum((label != 255).sum() for _, label in batches) >= 4 * 40 * 20
    assert [len(image) for image, _ in data.batches("val", batch_size=10)] == [10, 10, 4]


def test_what_a_dataset_shows_of_itself():
    data = Dataset.from_arrays(images(), masks())
    assert repr(data) == "Dataset('arrays': 6 images, 1 channel, 2 classes)"


def test_batches_need_labels_and_a_size(folder):
    folder.pairs(10)
    data = Dataset(folder.path / "images", labeled=False)
    with pytest.raises(DataError, match="images: opened without labels; open it with labeled=True"):
        data.batches("train")
    with pytest.raises(DataError, match="batch_size=0: give at least 1"):
        Dataset(folder.path).batches("train", batch_size=0)


def test_batches_of_what_is_not_there():
    data = Dataset.from_arrays(images(), masks())
    with pytest.raises(DataError, match="part='valid' is unknown; give 'train', 'val', 'test'"):
        data.batches("valid")
    with pytest.raises(
        DataError, match=r"arrays: the part 'test' is empty; raise data\.test_fraction"
    ):
        data.batches("test")
    with pytest.raises(DataError, match="5 training samples are fewer than a batch of 8"):
        next(data.batches("train"))
