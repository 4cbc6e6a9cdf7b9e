"""Locks between processes and threads."""

from __future__ import annotations

import threading
import time

from perceptloss.weights import locks


def test_only_one_is_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_POLL", 0.001)
    inside, seen = [], []

    def work() -> None:
        for _ in range(5):
            with locks.exclusive(tmp_path / "x.lock") as held:
                inside.append(held)
                time.sleep(0.001)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 20
    assert not (tmp_path / "x.lock").exists()


def test_a_lock_file_that_its_last_holder_removed_is_made_anew(tmp_path, monkeypatch):
    path = tmp_path / "x.lock"
    real, calls = locks._try_lock, []

    def slow(descriptor: int) -> bool:
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        return real(descriptor)

    monkeypatch.setattr(locks, "_try_lock", slow)
    with locks.exclusive(path) as held:
        assert held
        assert path.exists(), "the lock is on a file that others no longer see"
    assert len(calls) == 2
    assert not path.exists()
