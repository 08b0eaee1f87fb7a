"""Images by name or by path: bundled cuts, a local data root, downloads, and whatever the user brings.

    load_images("svhn", n=1000)                        # bundled, no network
    load_images("celeba", data_root="~/data", size=(32, 32))
    load_images("mine=folder_of_png/")                 # folder, .zip, .npy, .npz

Importing this package needs numpy and Pillow only, never torch.
"""

from vaebm.data.catalogue import DATASETS, DatasetInfo
from vaebm.data.colour import to_channels
from vaebm.data.digits import binarise
from vaebm.data.duplicates import remove_duplicates
from vaebm.data.image_set import ImageSet
from vaebm.data.interpolation import PAIRINGS, interpolate
from vaebm.data.load import load_images
from vaebm.data.resizing import require, resize
from vaebm.data.synthetic import SYNTHETIC
from vaebm.data.unavailable import DataUnavailable

__all__ = [
    "DATASETS",
    "PAIRINGS",
    "SYNTHETIC",
    "DataUnavailable",
    "DatasetInfo",
    "ImageSet",
    "binarise",
    "interpolate",
    "load_images",
    "remove_duplicates",
    "require",
    "resize",
    "to_channels",
]
