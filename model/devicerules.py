"""Rules for wishes about devices, and limits on them: every problem at once, each with its path. Pure.

Sources: kernel docs admin-guide/cgroup-v1/devices.rst and blkio-controller.rst. Whether a host has the device
is asked there: these rules need the input alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.codec import MAX_INT
from model.errors import Problem
from model.spec import BlkioDevice, ContainerSpec, Resources

DEVICE_RULE = re.compile(r"([abc]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})\Z")
PERMISSIONS = re.compile(r"(?!.*(.).*\1)[rwm]{1,3}\Z")
_WEIGHTS = range(10, 1001)
MOST_DEVICES = 256


def device_problems(spec: ContainerSpec, at: str) -> Iterator[Problem]:
    if not -1000 <= spec.oom_score_adj <= 1000:
        yield Problem(path=f"{at}.oom_score_adj", message="must be -1000 to 1000")
    if spec.uts_mode and (spec.hostname or spec.domainname):
        said = "host: its name is the host's then, and can't be another"
        yield Problem(path=f"{at}.uts_mode", message=said)
    for field in ("devices", "device_rules"):
        if len(getattr(spec, field)) > MOST_DEVICES:
            yield Problem(path=f"{at}.{field}", message=f"has more than {MOST_DEVICES} entries")
    for index, device in enumerate(spec.devices):
        where = f"{at}.devices[{index}]"
        for field in ("source", "target"):
            if problem := _no_path(getattr(device, field)):
                yield Problem(path=f"{where}.{field}", message=problem)
        if not PERMISSIONS.match(device.permissions):
            said = f"{device.permissions[:20]!r} is not made of r, w and m"
            yield Problem(path=f"{where}.permissions", message=said)
    for index, rule in enumerate(spec.device_rules):
        if not DEVICE_RULE.match(rule):
            said = f"invalid rule {rule[:40]!r}: write for example 'c 10:200 rwm'"
            yield Problem(path=f"{at}.device_rules[{index}]", message=said)
    for field in ("masked_paths", "readonly_paths"):
        for index, path in enumerate(getattr(spec, field) or ()):
            if problem := _no_path(path):
                yield Problem(path=f"{at}.{field}[{index}]", message=problem)


def block_problems(resources: Resources, at: str) -> Iterator[Problem]:
    if resources.blkio_weight and resources.blkio_weight not in _WEIGHTS:
        yield Problem(path=f"{at}.blkio_weight", message="must be 10 to 1000")
    if not -1 <= resources.memory_swappiness <= 100:
        yield Problem(path=f"{at}.memory_swappiness", message="must be 0 to 100, or -1")
    if resources.oom_kill_disable and not resources.memory:
        said = "needs a memory limit: without one the host itself may hang"
        yield Problem(path=f"{at}.oom_kill_disable", message=said)
    for index, device in enumerate(resources.blkio_devices):
        yield from _block(device, f"{at}.blkio_devices[{index}]")


def _block(device: BlkioDevice, at: str) -> Iterator[Problem]:
    if problem := _no_path(device.path):
        yield Problem(path=f"{at}.path", message=problem)
    if device.weight and device.weight not in _WEIGHTS:
        yield Problem(path=f"{at}.weight", message="must be 10 to 1000")
    for field in ("read_bps", "write_bps", "read_iops", "write_iops"):
        if not 0 <= getattr(device, field) <= MAX_INT:
            yield Problem(path=f"{at}.{field}", message="must not be negative")


def _no_path(text: str) -> str:
    """Why it is none, in words; empty if it is one."""
    if not text.startswith("/") or "\0" in text or len(text) > 4096:
        return f"{text[:80]!r} is not an absolute path"
    return f"{text[:80]!r} must not contain '..'" if ".." in text.split("/") else ""
