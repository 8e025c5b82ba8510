"""Small DICOM files."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid()


def dicom(file: Path, pixels: np.ndarray | None, *, uid=CTImageStorage, **tags) -> Path:
    """A small DICOM file; tags replace or add to those of a CT slice, None leaves them out."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = uid
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.PatientID, header.PatientName = "MRN-4711", "Nobody^At^All"
    header.Modality, header.SeriesInstanceUID, header.InstanceNumber = "CT", SERIES, 1
    header.PixelSpacing, header.PhotometricInterpretation = [0.5, 0.75], "MONOCHROME2"
    if pixels is not None:
        header.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
        header.Rows, header.Columns = pixels.shape[-3:-1] if pixels.shape[-1] == 3 else pixels.shape[-2:]
        header.BitsAllocated = header.BitsStored = 8 * pixels.itemsize
        header.HighBit, header.PixelRepresentation = header.BitsStored - 1, int(pixels.dtype.kind == "i")
        header.PixelData = pixels.tobytes()
        if header.SamplesPerPixel == 3:
            header.PlanarConfiguration, header.PhotometricInterpretation = 0, "RGB"
    for tag, value in tags.items():
        setattr(header, tag, "" if value is None else value)
        if value is None:
            delattr(header, tag)
    file.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(file, enforce_file_format=True)
    return file


def ramp(start: int = 0, dtype=np.uint16) -> np.ndarray:
    return (start + np.arange(12).reshape(3, 4)).astype(dtype)


def stack(folder: Path, order=(2, 0, 3, 1), **tags) -> Path:
    """Four oblique CT slices 2 mm apart; the names of the files say nothing of their order."""
    row, column = np.array([1, 0, 0]), np.array([0, 0.6, 0.8])
    for name, i in enumerate(order):
        position = (10 * row + 2 * i * np.cross(row, column)).tolist()
        place = dict(ImagePositionPatient=position, ImageOrientationPatient=[*row.tolist(), *column.tolist()])
        rescale = dict(RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 300], WindowWidth=[400, 1500])
        dicom(folder / f"{name}.dcm", ramp(100 * i), **(place | rescale | dict(InstanceNumber=9 - i) | tags))
    return folder
