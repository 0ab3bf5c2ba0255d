"""Downloads from a server on this machine: checked, all or nothing, and only on request."""

import functools
import gzip
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import pcx.data
from pcx.data import _table, fetch, load, load_idx
from tests.data.test_datasets import write_idx_set


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `cut` bytes of each file at most, and counts requests."""

    cut = None
    requests = 0


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        if self.server.cut is None:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with a small MNIST, whose checksums are those of the table."""
    folder = tmp_path / "served"
    write_idx_set(folder, suffix=".gz", compress=gzip.compress)
    handler = functools.partial(Handler, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        files = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
        changed = {**_table.DATASETS["mnist"].__dict__, "files": files, "url": url}
        table = {**_table.DATASETS, "mnist": pcx.data.Source(**changed)}
        monkeypatch.setattr("pcx.data._download.DATASETS", table)
        server.url, server.folder = url, folder
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_nothing_is_downloaded_without_request(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="downloads only with `download=True`"):
        load_idx("mnist", tmp_path / "data")
    assert server.requests == 0
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("mirror", [True, "url"])
def test_missing_files_are_fetched_once_and_read(server, tmp_path, mirror):
    download = server.url if mirror == "url" else True
    data = load("mnist", tmp_path / "data", download=download)
    assert (len(data.x_train), len(data.x_test)) == (3, 2)
    assert names(tmp_path / "data/mnist") == names(server.folder)
    assert server.requests == 4
    load("mnist", tmp_path / "data", download=download)
    assert server.requests == 4


def test_only_what_is_missing_is_fetched(server, tmp_path):
    fetch("mnist", tmp_path)
    (tmp_path / "mnist/t10k-labels-idx1-ubyte.gz").unlink()
    fetch("mnist", tmp_path / "mnist")
    assert server.requests == 5


def test_a_file_that_is_not_the_official_one_is_not_kept(server, tmp_path):
    path = server.folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(b"<html>not here</html>")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(
        ValueError, match=rf"not the official file: 21 bytes with MD5 {found}, wher"
    ):
        load("mnist", tmp_path / "data", download=True)
    assert not (tmp_path / "data/mnist/train-labels-idx1-ubyte.gz").exists()
    assert all(name.endswith(".gz") for name in names(tmp_path / "data"))


def test_a_transfer_cut_short_leaves_nothing(server, tmp_path):
    server.cut = 10
    with pytest.raises((ValueError, ConnectionError), match="mnist: "):
        fetch("mnist", tmp_path / "data")
    assert names(tmp_path / "data") == []


def test_a_file_that_the_server_lacks_is_named(server, tmp_path):
    (server.folder / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        ConnectionError, match=r"images-idx3-ubyte.gz cannot be fetched \(File not fo"
    ):
        fetch("mnist", tmp_path / "data")


def test_without_a_network_it_says_what_to_put_where(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(
        ConnectionError,
        match=r"mnist: http.* cannot be fetched .* offline, put train-images-idx3-ubyte.gz, .* into "
        r".*mnist by hand, or pass `download=",
    ):
        load("mnist", tmp_path, download=url)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["notmnist", "celeba"])
def test_sets_that_no_server_offers_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} cannot be downloaded: no server offers"):
        fetch(name, tmp_path)


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fetch: no data set is called 'imagenet'"):
        fetch("imagenet", tmp_path)


def test_the_command_line_reads_a_set_and_says_what_is_missing(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "pcx.data", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    write_idx_set(tmp_path / "mnist")
    done = run("mnist", "--data-dir", str(tmp_path))
    assert done.stdout == "Dataset('mnist', train=3, test=2, shape=(1, 28, 28), classes=10)\n"
    done = run("kmnist", "--data-dir", str(tmp_path), "--download", "http://127.0.0.1:1/")
    assert done.returncode == 1
    assert "kmnist: http://127.0.0.1:1/train-images-idx3-ubyte.gz cannot be fetched" in done.stderr
    assert np.all([p.parent.name == "mnist" for p in tmp_path.rglob("*ubyte*")])


def test_load_says_that_a_set_without_a_server_is_put_there_by_hand(tmp_path):
    with pytest.raises(ValueError, match=r"celeba cannot be downloaded: .*into .*celeba by hand"):
        pcx.data.load("celeba", tmp_path, download=True)
    with pytest.raises(FileNotFoundError, match="img_align_celeba"):
        pcx.data.load("celeba", tmp_path)
