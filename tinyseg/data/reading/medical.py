"""Single DICOM and NIfTI slices, by pydicom and nibabel, which are extras."""

import gzip
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.data.reading.tiff import BYTES_LIMIT
from tinyseg.errors import DataError, missing_package

DEFLATED = "1.2.840.10008.1.2.1.99"
NIFTI_HEADER = 348
"""Bytes of a NIfTI-1 header, which begins with this number."""
MOST_EXTENSION = 1 << 20
"""Bytes that may lie between the header of a NIfTI file and its pixels."""


def is_dicom(start: bytes) -> bool:
    """Return whether a file that begins so is DICOM."""
    return start[128:132] == b"DICM"


def is_nifti(path: Path, start: bytes) -> bool:
    """Return whether a file that begins so is NIfTI, maybe gzipped."""
    zipped = start[:2] == b"\x1f\x8b" and path.name.casefold().endswith(".nii.gz")
    return zipped or (len(start) >= NIFTI_HEADER and start[344:347] in (b"n+1", b"ni1"))


def read_dicom(path: Path, page: int | None) -> tuple[np.ndarray, int]:
    """Return a slice (H, W, C) in the units of the device, and the number of frames.

    Rescale slope and intercept (or the modality LUT) are applied; MONOCHROME1, in which the
    smallest value is white, is turned over; palettes become RGB.
    """
    try:
        import pydicom
        from pydicom import config, errors, pixels
    except ImportError:
        raise missing_package(f"{path}: DICOM", "pydicom", "dicom") from None
    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
            raise DataError(f"{path}: a deflated DICOM file; save it with another transfer syntax")
        dataset = pydicom.dcmread(path)
        frames = _check_dicom(path, dataset)
        if page is not None and page >= frames:
            raise DataError(f"{path}: has {frames} frames, none of number {page}")
        stored = pixels.pixel_array(dataset, index=page or 0)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _eight_bits(pixels.apply_color_lut(stored, dataset)), frames
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            stored = -1 - stored if stored.dtype.kind == "i" else 2**dataset.BitsStored - 1 - stored
        values = pixels.apply_modality_lut(stored, dataset)
    except (errors.InvalidDicomError, errors.BytesLengthException) as error:
        raise ValueError(str(error)) from None
    return _whole(values).reshape(*values.shape[:2], -1), frames


def _check_dicom(path: Path, dataset: Any) -> int:
    """Return the number of frames; DataError for files without pixels, or with too many."""
    if "PixelData" not in dataset or "Rows" not in dataset:
        raise DataError(f"{path}: a DICOM file without pixels; remove it")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    size = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1)
    if not 0 < size * frames * dataset.BitsAllocated // 8 <= BYTES_LIMIT or frames < 1:
        raise DataError(f"{path}: its pixels take more than {BYTES_LIMIT >> 30} GiB, or none")
    return frames


def _eight_bits(rgb: np.ndarray) -> np.ndarray:
    """Return the colors of a palette, of which 16-bit ones use the high byte, as uint8."""
    return rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)


def read_nifti(path: Path) -> np.ndarray:
    """Return a single slice (H, W, C): the second axis of the file as rows, as viewers show it.

    DataError for volumes.
    """
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError
    except ImportError:
        raise missing_package(f"{path}: NIfTI", "nibabel", "nifti") from None
    _check_nifti_header(path)
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        shape = image.shape
        if len(shape) < 2 or any(side > 1 for side in shape[2:]):
            raise DataError(
                f"{path}: holds a volume of {' x '.join(map(str, shape))}; tinyseg segments single "
                "slices: save each as a file of its own"
            )
        size = shape[0] * shape[1] * image.get_data_dtype().itemsize
        if not 0 < size <= BYTES_LIMIT:
            raise DataError(f"{path}: its pixels take more than {BYTES_LIMIT >> 30} GiB, or none")
        values = np.asanyarray(image.dataobj).reshape(shape[:2])
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ValueError(str(error)) from None
    if values.dtype.names:  # RGB
        values = np.stack([values[name] for name in values.dtype.names[:3]], axis=2)
        return np.ascontiguousarray(values.transpose(1, 0, 2))
    return _whole(values.T)[..., None]


def _check_nifti_header(path: Path) -> None:
    """ValueError when pixels lie so far behind the header that reading up to them may hang."""
    opened: Any = gzip.open if path.suffix.casefold() == ".gz" else open
    with opened(path, "rb") as file:
        start = file.read(NIFTI_HEADER)
    order = next((o for o in "<>" if start[:4] == struct.pack(f"{o}i", NIFTI_HEADER)), None)
    if order is None or len(start) < NIFTI_HEADER:
        raise ValueError("its header is not that of NIfTI-1")
    offset = struct.unpack_from(f"{order}f", start, 108)[0]
    if not 0 <= offset <= MOST_EXTENSION:
        raise ValueError(f"its pixels begin at byte {offset:g}")


def _whole(values: np.ndarray) -> np.ndarray:
    """Return floats that are all whole numbers of 32 bits as int32, others as they are."""
    if values.dtype.kind != "f":
        return values
    if np.isfinite(values).all() and (np.abs(values) < 2**31).all():
        whole = values.astype(np.int32)
        if (whole == values).all():
            return whole
    return values
