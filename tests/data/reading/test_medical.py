"""DICOM and NIfTI slices, and damaged files of all kinds that optional packages read."""

import gzip
import io
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinyseg.data import Dataset
from tinyseg.data.reading.decode import decode_image, decode_mask, load_image
from tinyseg.errors import DataError

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.integers(0, 4096, (12, 16)).astype(np.uint16)


def dicom(values: np.ndarray = VALUES, photometric: str = "MONOCHROME2", **more: object) -> bytes:
    """An uncompressed DICOM file of 12 bits."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2", "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def nifti(values: np.ndarray, slope: float = 1.0) -> bytes:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(values, np.eye(4))
    if slope != 1:
        image.header.set_slope_inter(slope, -2)
    return image.to_bytes()


def test_a_dicom_slice_is_rescaled_and_its_white_is_bright(folder):
    plain = decode_image(folder.text("a.dcm", dicom()))
    np.testing.assert_array_equal(plain.pixels[..., 0], VALUES)
    rescaled = dicom(RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(
        decode_image(folder.text("b.dcm", rescaled)).pixels[..., 0], VALUES.astype(int) * 2 - 1024
    )
    inverted = decode_image(folder.text("c.dcm", dicom(photometric="MONOCHROME1"))).pixels
    np.testing.assert_array_equal(inverted[..., 0], 4095 - VALUES)
    two = decode_image(folder.text("d.dcm", dicom(np.stack([VALUES, VALUES]), NumberOfFrames=2)))
    assert two.more_frames
    np.testing.assert_array_equal(two.pixels[..., 0], VALUES)


def test_a_nifti_slice_has_its_second_axis_as_rows(folder):
    values = VALUES.astype(np.int16)
    for name, content in (
        ("a.nii", nifti(values)),
        ("b.nii.gz", gzip.compress(nifti(values[..., None]))),
    ):
        read = decode_image(folder.text(name, content)).pixels
        np.testing.assert_array_equal(read[..., 0], values.T)
    half = decode_image(folder.text("c.nii", nifti(values, slope=0.5))).pixels
    np.testing.assert_allclose(half[..., 0], values.T * 0.5 - 2)
    mask = decode_mask(folder.text("d.nii", nifti((VALUES > 2000).astype(np.uint8))))
    np.testing.assert_array_equal(mask.pixels, VALUES.T > 2000)
    with pytest.raises(DataError, match=r"holds a volume of 12 x 16 x 3; .* single slices"):
        load_image(folder.text("e.nii", nifti(np.repeat(values[..., None], 3, 2))), None)


def test_a_folder_of_dicom_slices_takes_one_range(folder):
    for index in range(3):
        folder.text(f"images/a{index}.tif", dicom(RescaleSlope=1, RescaleIntercept=-1000 * index))
        folder.mask(f"masks/a{index}.png")
    dataset = Dataset(folder.path)
    assert dataset.channels == 1
    (found,) = dataset.ranges["integer"]
    assert found.low == (VALUES.min() - 2000.0,)
    assert dataset[0].image.mean() > dataset[2].image.mean() + 0.2


def test_without_the_package_the_pip_command_is_said(folder, monkeypatch):
    files = (
        ("pydicom", "dicom", bytes(128) + b"DICM"),
        ("nibabel", "nifti", bytes(344) + b"n+1\0" + bytes(40)),
    )
    for package, extra, content in files:
        path = folder.text("a", content)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=rf'pip install "tinyseg\[{extra}\]"'):
            load_image(path, None)


def tiff() -> bytes:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    values = RANDOM.integers(0, 4096, (12, 16, 5)).astype(np.uint16)
    tifffile.imwrite(buffer, values, photometric="minisblack", compression="zlib")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.tif", tiff),
        ("a.dcm", dicom),
        ("a.nii", lambda: nifti(VALUES)),
        ("a.nii.gz", lambda: gzip.compress(nifti(VALUES))),
    ],
)
def test_damaged_files_are_one_line_and_never_hang(folder: object, name: str, make: object):
    good, rng, begun = make(), np.random.default_rng(7), time.monotonic()
    path: Path = folder.text(name, good)
    decode_image(path)
    messages = []
    for number in range(80):
        bad = bytearray(good if number % 4 else good[: rng.integers(1, len(good))])
        for place in rng.integers(0, min(len(bad), 600), rng.integers(1, 6)):
            bad[place] = rng.integers(0, 256)
        path.write_bytes(bytes(bad))
        for read in (decode_image, decode_mask):
            try:
                assert read(path).pixels.nbytes < 1 << 31
            except DataError as error:
                messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
    assert time.monotonic() - begun < 60
