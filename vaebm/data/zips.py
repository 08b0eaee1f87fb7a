"""Looking at a zip archive before trusting it: how much is in it, under which names, and where its members lie."""

import os
import struct
import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import IO

# Of the list of members, of which all is read before anything else can be: half a million of them, which take 0.4 GB.
MAX_LIST_BYTES = 2**25
_END, _END_64_LOCATOR, _END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_LOCAL_HEADER = struct.Struct("<4s22x2H")


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """Return an archive whose list of members is known to be no burden.

    Raises:
        zipfile.BadZipFile: it is no archive, its list of members is too long, or it holds a name twice.
    """
    if (size := _list_bytes(file)) > MAX_LIST_BYTES:
        raise zipfile.BadZipFile(f"its list of members has {size:,} bytes, the limit is {MAX_LIST_BYTES:,}")
    file.seek(0)
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    if len(set(names)) < len(names):  # which of them is meant, nobody can say
        (twice, _), *_ = Counter(names).most_common(1)
        raise zipfile.BadZipFile(f"it holds {twice!r} twice")
    return archive


def points_outside(name: str) -> bool:
    """Whether unpacking a member of this name would write outside the chosen folder."""
    return name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or name[1:2] == ":"


def data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where the data of a member begin. Raises: zipfile.BadZipFile when they do not lie in the file."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"{member.filename!r} is not where the list of members says")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    return member.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _list_bytes(file: IO[bytes]) -> int:
    """Size of the list of members (the central directory), as the end of the file tells it; 0 where it tells nothing."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 2**16 - 22 - 20)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        return 0
    found = int.from_bytes(tail[at + 12 : at + 16], "little")
    locator = tail[at - 20 : at] if at >= 20 else b""
    if locator.startswith(_END_64_LOCATOR):  # of large archives
        file.seek(min(size, int.from_bytes(locator[8:16], "little")))
        end = file.read(56)
        if end.startswith(_END_64):
            found = max(found if found < 2**32 - 1 else 0, int.from_bytes(end[40:48], "little"))
    return found
