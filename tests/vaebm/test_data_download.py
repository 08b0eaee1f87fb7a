"""Downloads: verified, cached, resumed, quick to say that there is no network. A local server stands for the world."""

import gzip
import hashlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from vaebm.data import DataUnavailable, download, load_images
from vaebm.data.download import FILES, RemoteFile, fetch
from vaebm.errors import UserError


class World:
    """A web server on this machine: ``files`` by path, ``requests`` as (path, Range), ``cut`` ends answers early."""

    def __init__(self):
        self.files, self.requests, self.cut, self.ranges = {}, [], None, True
        world = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                world.requests.append((self.path, asked))
                body = world.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                start = int(asked[6:-1]) if asked and world.ranges else 0
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                self.wfile.write(body[start : world.cut])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setenv("VAEBM_CACHE", str(tmp_path / "cache"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


BODY = bytes(range(256)) * 40


def remote(world, body=BODY, name="a.bin", urls=None):
    return RemoteFile(name, "sha256:" + hashlib.sha256(body).hexdigest(), urls or (f"{world.url}/{name}",))


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_fetched_once_then_cached(world, tmp_path):
    world.files["/a.bin"] = BODY
    for _ in range(2):
        assert fetch(remote(world), tmp_path).read_bytes() == BODY
    assert world.requests == [("/a.bin", None)]
    assert visible(tmp_path) == ["a.bin"]


def test_a_broken_download_leaves_no_file_and_is_resumed(world, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 100)
    world.files["/a.bin"], world.cut = BODY, 1000
    with pytest.raises(DataUnavailable, match="download failed"):
        fetch(remote(world), tmp_path)
    assert visible(tmp_path) == []
    world.cut = None
    assert fetch(remote(world), tmp_path).read_bytes() == BODY
    assert world.requests[-1] == ("/a.bin", "bytes=1000-")


def test_a_server_without_ranges_starts_anew(world, tmp_path):
    (tmp_path / ".a.bin.part").write_bytes(b"old")
    world.files["/a.bin"], world.ranges = BODY, False
    assert fetch(remote(world), tmp_path).read_bytes() == BODY


def test_a_part_that_is_complete_already(world, tmp_path):
    (tmp_path / ".a.bin.part").write_bytes(BODY)
    world.files["/a.bin"] = BODY
    assert fetch(remote(world), tmp_path).read_bytes() == BODY


def test_another_file_is_refused_and_the_next_try_is_clean(world, tmp_path):
    world.files["/a.bin"] = b"<html>please log in</html>"
    with pytest.raises(DataUnavailable, match="not the known file"):
        fetch(remote(world), tmp_path)
    assert visible(tmp_path) == []
    world.files["/a.bin"] = BODY
    assert fetch(remote(world), tmp_path).read_bytes() == BODY


def test_a_damaged_cached_file_is_fetched_again(world, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"damaged")
    world.files["/a.bin"] = BODY
    assert fetch(remote(world), tmp_path).read_bytes() == BODY


def test_mirrors_in_turn(world, tmp_path):
    world.files["/second/a.bin"] = BODY
    urls = (f"{world.url}/first/a.bin", f"{world.url}/second/a.bin")
    assert fetch(remote(world, urls=urls), tmp_path).read_bytes() == BODY
    with pytest.raises(DataUnavailable, match="HTTP 404"):
        fetch(remote(world, name="b.bin"), tmp_path)


def test_several_processes_at_once(world, tmp_path):
    world.files["/a.bin"] = BODY
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch(remote(world), tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(world.requests) == 1


def test_unwritable_cache_is_the_users_matter(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="VAEBM_CACHE") as caught:
        fetch(remote(world), tmp_path / "file" / "cache")
    assert not isinstance(caught.value, DataUnavailable)


def test_no_network_is_one_line_and_quick(monkeypatch):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    start = time.monotonic()
    for name in ("kmnist", "fashion_mnist"):
        with pytest.raises(DataUnavailable, match=r"no network.*--data-root") as caught:
            load_images(name, split="train")
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 3


def test_silence_times_out(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        with pytest.raises(DataUnavailable, match="timed out"):
            fetch(RemoteFile("a.bin", "md5:0", (url,)), tmp_path)
    with pytest.raises(DataUnavailable, match="connection refused"):
        fetch(RemoteFile("a.bin", "md5:0", (url,)), tmp_path)


def test_load_images_downloads_by_name(world, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    head = lambda array: bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    bodies = {
        "train-images-idx3-ubyte.gz": gzip.compress(head(images) + images.tobytes()),
        "train-labels-idx1-ubyte.gz": gzip.compress(head(np.arange(3)) + bytes((7, 8, 9))),
    }
    world.files = {f"/{name}": body for name, body in bodies.items()}
    files = tuple(remote(world, body, name) for name, body in bodies.items())
    monkeypatch.setitem(FILES, ("kmnist", "train"), files)
    found = load_images("kmnist", split="train", n=2)
    assert (found.images[..., 0] == images[:2]).all()
    assert found.labels.tolist() == [7, 8]
    assert found.split == "train"
    assert found.source == "downloaded: train-images-idx3-ubyte.gz"
    world.files = {}
    assert len(load_images("kmnist", split="train")) == 3  # from the cache


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_downloaded_formats_meet_their_readers(name, world, monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    if name == "svhn":
        from scipy.io import savemat

        file = "train_32x32.mat"
        savemat(tmp_path / file, {"X": pixels.transpose(1, 2, 3, 0), "y": np.array([[10], [1]], np.uint8)})
    else:
        import pickle
        import tarfile

        file = "cifar-10-python.tar.gz"
        batch = {b"data": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(2, -1), b"labels": [0, 1]}
        (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=3))
        with tarfile.open(tmp_path / file, "w:gz") as archive:
            for k in range(1, 6):
                archive.add(tmp_path / "batch", f"cifar-10-batches-py/data_batch_{k}")
    world.files[f"/{file}"] = (tmp_path / file).read_bytes()
    monkeypatch.setitem(FILES, (name, "train"), (remote(world, world.files[f"/{file}"], file),))
    found = load_images(name, split="train")
    assert (found.images[:2] == pixels).all()
    assert found.labels[:2].tolist() == [0, 1]


def test_every_remote_file_has_a_hash_of_full_length():
    lengths = {"sha256": 64, "md5": 32}
    for files in FILES.values():
        for file in files:
            algorithm, _, value = file.known_hash.partition(":")
            assert len(value) == lengths[algorithm]
            assert set(value) <= set("0123456789abcdef")
            assert all(url.endswith(f"/{file.name}") for url in file.urls)


def test_celeba_is_never_downloaded():
    assert not any(name == "celeba" for name, _ in FILES)
