"""Downloads by name, verified by hash, resumed where they stopped, into one cache folder.

The folder is ``$VAEBM_CACHE`` or the platform's cache folder. A file appears under its name only when complete and
verified, also when several processes ask for it at once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaebm.data import cifar_python, idx, svhn_mat
from vaebm.data.image_set import ImageSet
from vaebm.data.messages import reason
from vaebm.data.unavailable import DataUnavailable
from vaebm.errors import UserError

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
CHUNK = 1 << 16  # what a broken connection can lose


@dataclass(frozen=True)
class RemoteFile:
    """A file, its known hash (``"sha256:..."`` or ``"md5:..."``) and the addresses to try in turn."""

    name: str
    known_hash: str
    urls: tuple[str, ...]


def _cifar(file: str, sha256: str) -> tuple[RemoteFile, ...]:
    return (RemoteFile(file, f"sha256:{sha256}", (f"https://www.cs.toronto.edu/~kriz/{file}",)),)


def _svhn(file: str, known_hash: str) -> tuple[RemoteFile, ...]:
    return (RemoteFile(file, known_hash, (f"http://ufldl.stanford.edu/housenumbers/{file}",)),)


def _idx(mirrors: tuple[str, ...], split: str, images_md5: str, labels_md5: str) -> tuple[RemoteFile, ...]:
    stem = idx.STEM[split]
    names = (f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz")
    return tuple(
        RemoteFile(name, f"md5:{md5}", tuple(mirror + name for mirror in mirrors))
        for name, md5 in zip(names, (images_md5, labels_md5), strict=True)
    )


_CIFAR10 = _cifar("cifar-10-python.tar.gz", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce")
_CIFAR100 = _cifar("cifar-100-python.tar.gz", "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7")
_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
_FASHION = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_KMNIST = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)

# The md5 sums of the idx files and of SVHN train are those torchvision publishes with its data sets.
FILES: dict[tuple[str, str], tuple[RemoteFile, ...]] = {
    ("cifar10", "train"): _CIFAR10,
    ("cifar10", "test"): _CIFAR10,
    ("cifar100", "train"): _CIFAR100,
    ("cifar100", "test"): _CIFAR100,
    ("svhn", "train"): _svhn("train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
    ("svhn", "test"): _svhn(
        "test_32x32.mat", "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
    ),
    ("mnist", "train"): _idx(_MNIST, "train", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432"),
    ("mnist", "test"): _idx(_MNIST, "test", "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    ("fashion_mnist", "train"): _idx(
        _FASHION, "train", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe"
    ),
    ("fashion_mnist", "test"): _idx(
        _FASHION, "test", "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"
    ),
    ("kmnist", "train"): _idx(_KMNIST, "train", "bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344"),
    ("kmnist", "test"): _idx(_KMNIST, "test", "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
}


def cache_folder() -> Path:
    """``$VAEBM_CACHE``, or ``vaebm`` in the platform's cache folder."""
    import pooch

    return Path(os.environ.get("VAEBM_CACHE") or pooch.os_cache("vaebm")).expanduser()


def read_download(name: str, split: str) -> ImageSet:
    """Fetch the published files of a set (once; then the cache serves) and read them.

    Raises:
        DataUnavailable: no network, or the server's file is not the known one.
        UserError: the cache folder cannot be written.
    """
    folder = cache_folder() / name
    files = [fetch(remote, folder) for remote in FILES[name, split]]
    source = f"downloaded: {files[0].name}"
    if name in cifar_python.FOLDER:
        return ImageSet(name, *_ordered(source, split, cifar_python.read_cifar(files[0], name, split)))
    if name == "svhn":
        return ImageSet(name, *_ordered(source, split, svhn_mat.read_svhn(files[0])))
    pair = idx.read_idx_pair(folder, split)
    assert pair is not None  # fetch() has just put it there
    return ImageSet(name, *_ordered(source, split, pair))


def _ordered(source: str, split: str, pair: tuple[Any, Any]) -> tuple[Any, str, str, Any]:
    images, labels = pair
    return images, source, split, labels


def fetch(remote: RemoteFile, folder: Path) -> Path:
    """The verified local copy of ``remote`` in ``folder``, downloaded if need be.

    Raises:
        DataUnavailable: every address failed; the line has the last reason.
        UserError: ``folder`` cannot be written.
    """
    import pooch

    algorithm, _, expected = remote.known_hash.partition(":")
    path = folder / remote.name
    if path.is_file() and pooch.file_hash(str(path), alg=algorithm) == expected:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{remote.name}.lock"):
            return _from_first(remote, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({reason(error)}); set VAEBM_CACHE to another folder") from None


def _from_first(remote: RemoteFile, folder: Path) -> Path:
    import pooch
    import requests

    why = "no address known"
    for url in remote.urls:
        try:
            return Path(
                pooch.retrieve(
                    url, remote.known_hash, fname=remote.name, path=folder, downloader=_resume, progressbar=False
                )
            )
        except requests.RequestException as error:
            why = f"{url}: {_short(error)}"
        except ValueError:  # how pooch reports another hash; it has removed the file
            why = f"{url}: what came is not the known file (its {remote.known_hash.partition(':')[0]} differs)"
    raise DataUnavailable(f"download failed, {why}")


def _resume(url: str, output_file: str, downloader_of: Any) -> None:
    """Download ``url``, going on where an earlier try stopped; the rest of the protocol (hash, rename) is pooch's."""
    import requests

    part = Path(output_file).parent / f".{url.rsplit('/', 1)[-1]}.part"
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
        if response.status_code == 416:  # nothing after what we have: it is complete, or not this file
            os.replace(part, output_file)
            return
        response.raise_for_status()
        expected = response.headers.get("Content-Length")
        with part.open("ab" if response.status_code == 206 else "wb") as stream:
            for chunk in response.iter_content(CHUNK):
                stream.write(chunk)
            received = stream.tell() - (have if response.status_code == 206 else 0)
    if expected is not None and received < int(expected):
        raise requests.ConnectionError(f"connection closed after {received} of {expected} bytes; run again to go on")
    os.replace(part, output_file)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process at a time in, so that the ranks of one job do not write into one partial file."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _short(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    text = " ".join(str(error).split())
    for sign, meaning in (
        ("NameResolution", "no network (the address does not resolve)"),
        ("getaddrinfo", "no network (the address does not resolve)"),
        ("timed out", "timed out"),
        ("refused", "connection refused"),
    ):
        if sign in text:
            return meaning
    return reason(error)
