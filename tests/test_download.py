"""Downloads against a server on this machine that can be told to misbehave."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fileserver import serving

from perceptloss.errors import MissingWeights, WeightsError
from perceptloss.weights.download import Wanted, download, sha256_of

CONTENT = bytes(range(256)) * 4000  # 1 MB, several chunks
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    direct(monkeypatch)
    with serving(CONTENT) as server:
        yield server


def direct(monkeypatch) -> None:
    """No proxy, whatever the environment says."""
    monkeypatch.setattr("urllib.request._opener", None)  # remembers the proxies of its first use
    monkeypatch.setenv("no_proxy", "*")


def wanted(folder: Path, **changes) -> Wanted:
    fields = {"size": len(CONTENT), "sha256": SHA, "attempts": 3, "timeout": 5.0, "pause": 0.0, **changes}
    return Wanted(folder / "file.pth", **fields)


def part_of(folder: Path, content: bytes) -> Path:
    part = folder / f"file.pth.{SHA[:8]}.part"
    part.write_bytes(content)
    return part


def names(folder: Path) -> list[str]:
    """What lies there but for the lock, which stays."""
    return sorted({path.name for path in folder.iterdir()} - {".file.pth.lock"})


def test_whole_file_leaves_nothing_else_behind(server, tmp_path):
    target = download([server.url], wanted(tmp_path / "new" / "folder"))
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["file.pth"]
    assert server.manners.asked == [None]


def test_no_request_if_the_file_is_there(server, tmp_path):
    (tmp_path / "file.pth").write_bytes(CONTENT)
    assert sha256_of(download([server.url], wanted(tmp_path))) == SHA
    assert server.manners.asked == []


def test_a_damaged_target_is_replaced(server, tmp_path):
    (tmp_path / "file.pth").write_bytes(CONTENT[:-1] + b"!")
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT


def test_resumes_from_a_part_file(server, tmp_path):
    part_of(tmp_path, CONTENT[:300_000])
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == ["bytes=300000-"]
    assert names(tmp_path) == ["file.pth"]


def test_a_complete_part_file_needs_no_request(server, tmp_path):
    part_of(tmp_path, CONTENT)
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == []


def test_a_part_file_that_is_too_long_is_dropped(server, tmp_path):
    part_of(tmp_path, CONTENT + b"more")
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == [None]


def test_starts_again_if_the_server_ignores_ranges(server, tmp_path):
    server.manners.ranges = False
    part_of(tmp_path, b"x" * 300_000)  # would spoil the file if it were kept
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == ["bytes=300000-"]


@pytest.mark.parametrize("trouble", [{"states": [416]}, {"shift": 7}])
def test_starts_again_if_the_range_is_refused_or_another_one_comes(server, tmp_path, trouble):
    for key, value in trouble.items():
        setattr(server.manners, key, value)
    part_of(tmp_path, CONTENT[:300_000])
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == ["bytes=300000-", None]


def test_starts_again_if_an_old_part_file_was_of_another_file(server, tmp_path, caplog):
    part_of(tmp_path, b"x" * 300_000)
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == ["bytes=300000-", None]
    assert "the partial file was deleted" in caplog.text


@pytest.mark.parametrize("length", [True, False])
def test_a_cut_transfer_is_continued(server, tmp_path, length):
    server.manners.cut, server.manners.length = [400_000, 200_000], length
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == [None, "bytes=400000-", "bytes=600000-"]


def test_a_transfer_that_stays_cut_is_reported_and_kept(server, tmp_path):
    server.manners.cut = [5_000] * 3
    with pytest.raises(MissingWeights, match=r"15000 of 1024000 bytes \(3 attempts; 15.0 kB are kept in .*\.part"):
        download([server.url], wanted(tmp_path))
    assert names(tmp_path) == [f"file.pth.{SHA[:8]}.part"]
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked[-1] == "bytes=15000-"


def test_patience_lasts_as_long_as_the_file_grows(server, tmp_path):
    server.manners.cut = [100_000, 100, 100_000, 100] * 4
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT


def test_patience_ends_if_the_server_always_starts_over(server, tmp_path):
    server.manners.ranges, server.manners.cut = False, [400_000] * 9
    with pytest.raises(MissingWeights, match="400000 of 1024000 bytes"):
        download([server.url], wanted(tmp_path))
    assert len(server.manners.asked) == 3


def test_wrong_content_is_deleted_and_never_becomes_the_target(server, tmp_path):
    server.manners.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(server.manners.content).hexdigest()
    with pytest.raises(MissingWeights, match=f"wrong hash: expected sha256 {SHA}, got {found}.*was deleted") as caught:
        download([server.url], wanted(tmp_path))
    assert server.url in str(caught.value)
    assert names(tmp_path) == []
    assert server.manners.asked == [None], "the same wrong file was fetched again"


@pytest.mark.parametrize(
    ("content", "length", "message"),
    [
        (CONTENT + b"more", True, "the server has 1024004"),
        (CONTENT + b"more", False, "the server sends more"),
        (CONTENT[:-4], True, "the server has 1023996"),
    ],
)
def test_a_file_of_another_size_is_refused(server, tmp_path, content, length, message):
    server.manners.content, server.manners.length = content, length
    with pytest.raises(MissingWeights, match=f"wrong size: expected 1024000 bytes, {message}"):
        download([server.url], wanted(tmp_path))
    assert names(tmp_path) == []
    assert server.manners.asked == [None]


def test_missing_file_is_not_asked_for_twice(server, tmp_path):
    url = server.url.replace("file", "missing")
    with pytest.raises(MissingWeights, match=f"{url}: HTTP 404 Not Found"):
        download([url], wanted(tmp_path))
    assert len(server.manners.asked) == 1


def test_a_busy_server_is_asked_again(server, tmp_path, caplog):
    server.manners.states = [503, 429]
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert "HTTP 503" in caplog.text
    assert "HTTP 429" in caplog.text


def test_the_next_url_is_tried_and_continues_the_first_ones_part(server, tmp_path):
    server.manners.cut = [500_000]
    target = wanted(tmp_path, attempts=1)
    assert download([server.url, server.url.replace("file", "other")], target).read_bytes() == CONTENT
    assert server.manners.asked == [None, "bytes=500000-"]


def test_every_url_that_failed_is_named(server, tmp_path):
    urls = [server.url.replace("file", f"missing{n}") for n in range(2)]
    with pytest.raises(MissingWeights) as caught:
        download(urls, wanted(tmp_path))
    assert str(caught.value).count("HTTP 404") == 2
    assert all(url in str(caught.value) for url in urls)


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.pth"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert download(["http://weights.invalid/file.pth"], wanted(tmp_path)).read_bytes() == CONTENT


def test_no_network(tmp_path, monkeypatch):
    direct(monkeypatch)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # bound but not listening: refused
        with pytest.raises(MissingWeights, match=rf"127.0.0.1:{port}/x: no connection: .*refused.*\(3 attempts\)"):
            download([f"http://127.0.0.1:{port}/x"], wanted(tmp_path))


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    direct(monkeypatch)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/x"
        with pytest.raises(MissingWeights, match=r"timed out \(2 attempts\)"):
            download([url], wanted(tmp_path, timeout=0.1, attempts=2))


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1/with a space"])
def test_a_url_that_is_none(url, tmp_path):
    with pytest.raises(MissingWeights, match="not a usable URL"):
        download([url], wanted(tmp_path))


def test_file_urls_serve_as_mirrors(tmp_path):
    source = tmp_path / "mirror.pth"
    source.write_bytes(CONTENT)
    assert download([source.as_uri()], wanted(tmp_path / "cache")).read_bytes() == CONTENT
    with pytest.raises(MissingWeights, match="No such file") as caught:
        download([(tmp_path / "none.pth").as_uri()], wanted(tmp_path / "other"))
    assert "attempts" not in str(caught.value)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WeightsError, match=r"cannot write .*PERCEPTLOSS_CACHE"):
        download([server.url], wanted(tmp_path / "taken"))


@pytest.mark.parametrize("separated", ["threads", "processes only"])
def test_two_threads_fetch_once(server, tmp_path, monkeypatch, separated):
    if separated == "processes only":  # as on NFS
        monkeypatch.setattr("fcntl.flock", lambda descriptor, what: None)
    results = []
    threads = [threading.Thread(target=lambda: results.append(download([server.url], wanted(tmp_path)))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in results] == [True, True]
    assert server.manners.asked == [None]


def _fetch(url: str, folder: str, start, results) -> None:
    start.wait()
    results.put(sha256_of(download([url], wanted(Path(folder)))))


def test_two_processes_fetch_once(server, tmp_path):
    server.manners.cut = [100_000]
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    ranks = [context.Process(target=_fetch, args=(server.url, str(tmp_path), start, results)) for _ in range(2)]
    for rank in ranks:
        rank.start()
    assert [results.get(timeout=120) for _ in ranks] == [SHA, SHA]
    for rank in ranks:
        rank.join()
    assert server.manners.asked == [None, "bytes=100000-"]
    assert names(tmp_path) == ["file.pth"]


def test_without_file_locks_each_process_has_its_own_part(server, tmp_path, monkeypatch):
    def unsupported(descriptor: int, what: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    other = part_of(tmp_path, CONTENT[:1000])
    assert download([server.url], wanted(tmp_path)).read_bytes() == CONTENT
    assert server.manners.asked == [None]
    assert other.read_bytes() == CONTENT[:1000]


def test_progress_is_silent_without_a_terminal_unless_asked(server, tmp_path, capsys):
    download([server.url], wanted(tmp_path / "a"))
    assert capsys.readouterr() == ("", "")
    download([server.url], wanted(tmp_path / "b"), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err.splitlines()[-1] and "1.02M/1.02M" in shown.err.splitlines()[-1]


@pytest.mark.parametrize(("pace", "comes"), [(400, False), (40_000, True)])
def test_a_server_that_sends_next_to_nothing_is_given_up_and_the_lock_with_it(server, tmp_path, pace, comes):
    server.manners.pace = pace
    few = wanted(tmp_path, size=8000, sha256=hashlib.sha256(CONTENT[:8000]).hexdigest())
    few = replace(few, attempts=1, timeout=0.2, slowest=4000.0)
    server.manners.content = CONTENT[:8000]
    if comes:
        assert download([server.url], few).stat().st_size == 8000
        return
    with pytest.raises(MissingWeights, match=r"too slow: \d+ B/s, below 4.0 kB/s over 0 s .*the next run continues"):
        download([server.url], few)
    server.manners.pace = 0
    assert download([server.url], few).stat().st_size == 8000
    assert server.manners.asked[-1] != "bytes=0-"
