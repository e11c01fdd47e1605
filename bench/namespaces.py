"""Network namespaces of a benchmark, and programs of ours that live in one and are told what to do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Program:
    """A module of `bench` as a process that goes on: a line to it, a line of numbers back."""

    def __init__(self, namespace: str, module: str, *words: str) -> None:
        self._argv = ["ip", "netns", "exec", namespace, sys.executable, "-m", module, *words]

    def __enter__(self) -> Program:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        if self._line() != "ready":
            raise RuntimeError(f"{' '.join(self._argv[4:])} did not start")
        return self

    def ask(self, words: str) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        return [float(word) for word in self._line().split()]

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def inside(namespace: str, *words: str) -> str:
    return run("ip", "netns", "exec", namespace, *words)


def run(*words: str, stdin: str = "") -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=stdin)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:6])}: {(done.stderr or done.stdout).strip()[:300]}")
    return done.stdout
