"""The import law of ARCHITECTURE.md, held by the syntax tree of every file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "aio", "net", "image", "agent", "controller", "api", "cli", "deploy")

MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "aio": {"model"},
    "net": {"aio", "model"},
    "image": {"aio", "model"},
    "agent": {"net", "image", "aio", "model", "api"},
    "controller": {"net", "image", "aio", "model", "api"},
    "api": {"aio", "model"},
    "cli": {"api", "deploy", "aio", "model", "agent", "controller", "image"},
    "deploy": {"aio", "model"},
}
"""Arrows only go down."""

NARROW: dict[tuple[str, str], str] = {
    ("controller", "image"): r"controller/(main|registry\w*)\.py",
    ("agent", "api"): r"agent/(main|hostapi|streams|serve|dial|unix)\w*\.py",
    ("cli", "image"): r"cli/(build/\w+|commands/build\w*)\.py",
    ("cli", "aio"): r"cli/(daemon|remembered|systemd|unitfiles|commands/(backup|fleet))\.py",
    ("cli", "agent"): r"cli/commands/(daemons|restore)\.py",
    ("cli", "controller"): r"cli/commands/(daemons|backup|restore)\.py",
}
"""Where an allowed package pair is narrower than the package: files that may use it."""

SOLE_IMPORTER: dict[str, str] = {
    "pyroute2": r"net/kernel/netlink\w*\.py",
    "nftables": r"net/kernel/nft\.py",
    # a journal per agent, the controller's store, and the index of the fleet's registry: ADR 36; rpm's, read
    "sqlite3": r"(agent/journal\w*|controller/store/sqlite\w*|image/(registry/server/index|sbom/rpmdb))\.py",
    "asyncssh": r"deploy/ssh(keys)?\.py",
    "click": r"cli/.*\.py",
    "rich": r"cli/.*\.py",
    "yaml": r"cli/parse/yaml12\.py",
    "cryptography": r"(controller/(pki\w*|backup/seal)|agent/(join|keys|renewal)\w*|net/wireguard/keys"
    r"|cli/commands/daemons)\.py",
    "aiohttp": r"(api/.*|image/(registry|peers|context)/.*"
    r"|agent/(session|dial|join|logins|main|registrycopies|serve|unix)\w*"
    r"|controller/(main|registry(copies)?|noregistry))\.py",
}

PURE = [
    "model/*.py",
    "aio/backoff.py",
    "net/state.py",
    "net/diff.py",
    "net/drift.py",
    "net/plan.py",
    "net/ipam.py",
    "net/directrules.py",
    "net/paths.py",
    "net/peerdiff.py",
    "net/nic/state.py",
    "net/nic/messages.py",
    "net/nic/link.py",
    "net/publish.py",
    "net/hostfirewall.py",
    "net/dockeruser.py",
    "net/naming.py",
    "net/names.py",
    "net/zonenames.py",
    "net/resolver/state.py",
    "net/resolver/change.py",
    "net/resolver/statefile.py",
    "net/resolver/codec.py",
    "net/resolver/answer.py",
    "net/resolver/cache.py",
    "net/supervise/state.py",
    "net/wireguard/genl.py",
    "net/wireguard/uapi.py",
    "net/proxied.py",
    "net/proxy/header.py",
    "net/proxy/clients.py",
    "net/proxy/ranges.py",
    "net/proxy/state.py",
    "net/subnets.py",
    "net/endpoint.py",
    "net/firewall.py",
    "net/flows.py",
    "net/loadbalance.py",
    "net/policy.py",
    "net/policychains.py",
    "net/jhash.py",
    "net/l2guard.py",
    "net/sealing.py",
    "net/unroutedrules.py",
    "net/spans.py",
    "net/shaping.py",
    "net/servicechains.py",
    "net/servicenat.py",
    "net/nftscript.py",
    "net/kernel/observed.py",
    "net/backend/*.py",
    "image/reference.py",
    "image/digest.py",
    "image/manifest.py",
    "image/collection.py",
    "image/commit.py",
    "image/config_blob.py",
    "image/incoming.py",
    "image/tarwriter.py",
    "image/healthcheck.py",
    "image/changes.py",
    "image/tarfields.py",
    "image/sparse.py",
    "image/tarwriter.py",
    "image/zstdframes.py",
    "image/attestations.py",
    "image/sbom/packages.py",
    "image/sbom/rpm.py",
    "image/sbom/spdx.py",
    "image/dockerfile/*.py",
    "image/build/step.py",
    "image/build/described.py",
    "image/build/graph.py",
    "image/build/state.py",
    "image/build/keys.py",
    "image/build/evaluate.py",
    "image/build/keeping.py",
    "image/build/remote.py",
    "image/build/result.py",
    "image/build/variables.py",
    "image/build/wishes.py",
    "image/build/written.py",
    "image/build/chmod.py",
    "image/build/chown.py",
    "image/build/copyplan.py",
    "image/registry/auth.py",
    "image/registry/server/access.py",
    "image/registry/server/digests.py",
    "image/registry/server/documents.py",
    "image/registry/server/grammar.py",
    "image/registry/server/limits.py",
    "image/registry/server/pace.py",
    "image/registry/server/ranges.py",
    "image/registry/server/refusal.py",
    "image/registry/server/tables.py",
    "image/registry/endpoints.py",
    "image/peers/chain.py",
    "image/peers/choice.py",
    "image/peers/chunks.py",
    "image/peers/proof.py",
    "api/docker/bodies.py",
    "api/docker/detach.py",
    "api/docker/errors.py",
    "api/docker/fields.py",
    "api/docker/times.py",
    "api/docker/versions.py",
    "api/docker/containers/body.py",
    "api/docker/containers/hostconfig.py",
    "api/docker/containers/inspection.py",
    "api/docker/containers/mounts.py",
    "api/docker/containers/networks.py",
    "api/docker/containers/placing.py",
    "api/docker/containers/ports.py",
    "api/docker/containers/states.py",
    "agent/lifecycle.py",
    "agent/steps.py",
    "agent/assign.py",
    "agent/wanted.py",
    "agent/ownrules.py",
    "agent/restart.py",
    "agent/probe.py",
    "agent/plans.py",
    "agent/nameplan.py",
    "agent/etcfiles.py",
    "agent/ocispec.py",
    "agent/files/config.py",
    "agent/files/job.py",
    "agent/oci/*.py",
    "agent/build/clip.py",
    "agent/build/mounts.py",
    "agent/build/refusal.py",
    "agent/build/spec.py",
    "agent/runtime/argv.py",
    "agent/build/outbox.py",
    "controller/buildplace.py",
    "controller/copyplan.py",
    "controller/snapshot.py",
    "controller/plan.py",
    "controller/views.py",
    "controller/fixed.py",
    "controller/fullness.py",
    "controller/held.py",
    "controller/owned.py",
    "controller/short.py",
    "controller/recall.py",
    "controller/recovery.py",
    "controller/swarms.py",
    "controller/liveness.py",
    "controller/logins.py",
    "controller/addressing.py",
    "controller/reconcile/*.py",
    "controller/schedule/*.py",
    "deploy/families.py",
    "deploy/hostdaemons.py",
    "deploy/releases.py",
    "deploy/skew.py",
    "deploy/upgradeplan.py",
    "deploy/inventory.py",
    "deploy/hostprobe.py",
    "deploy/hostfacts.py",
    "deploy/findings.py",
    "deploy/steps.py",
    "deploy/software.py",
    "deploy/units.py",
    "deploy/openrc.py",
    "cli/render.py",
    "cli/parse/*.py",
    "cli/build/words.py",
    "cli/build/request.py",
    "cli/build/registries.py",
    "cli/build/progress.py",
]
PURE_STDLIB = {
    "__future__", "abc", "base64", "bisect", "collections", "copy", "csv", "dataclasses", "datetime", "enum",
    "fnmatch", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "operator",
    "posixpath", "re", "shlex", "signal", "string", "struct", "tomllib", "typing", "types", "unicodedata",
    "urllib",
}  # fmt: skip
PURE_LIBRARIES = {"msgspec", "immutables", "yaml"}
IMPURE_CALLS = {"open", "print", "input"}
FREE_TASKS = {"create_task", "ensure_future", "gather"}


def sources() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or "", node.lineno


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def matches(pattern: str, path: Path) -> bool:
    import re

    return re.fullmatch(pattern, name(path)) is not None


@pytest.mark.parametrize("path", sources(), ids=name)
def test_imports_of_a_file_point_only_downwards(path: Path) -> None:
    package = name(path).split("/")[0]
    for module, line in imports(path):
        target = module.split(".")[0]
        if target in PACKAGES and target != package:
            where = f"{name(path)}:{line} imports {module}"
            assert target in MAY_IMPORT[package], where
            narrow = NARROW.get((package, target))
            assert narrow is None or matches(narrow, path), f"{where}: only {narrow} may"
        sole = SOLE_IMPORTER.get(target)
        assert sole is None or matches(sole, path), f"{name(path)}:{line}: only {sole} may import {target}"


@pytest.mark.parametrize("path", sorted({p for g in PURE for p in ROOT.glob(g)}), ids=name)
def test_pure_modules_have_no_io_clock_or_await(path: Path) -> None:
    for module, line in imports(path):
        top = module.split(".")[0]
        assert top in PURE_STDLIB | PURE_LIBRARIES | set(PACKAGES), (
            f"{name(path)}:{line}: {module} in a pure module"
        )
    for node in ast.walk(tree(path)):
        where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{where}: async in a pure module"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{where}: {node.func.id}() in a pure module"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_only_main_files_choose_which_network_drivers_there_are(path: Path) -> None:
    if name(path).endswith("/main.py"):
        return
    assert "net.drivers" not in {module for module, _ in imports(path)}, f"{name(path)}: only main.py may"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr == "add":
            assert ast.unparse(node.value) != "backend", f"{name(path)}:{node.lineno}: only main.py may"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_free_standing_tasks_live_only_in_aio(path: Path) -> None:
    if name(path).startswith("aio/"):
        return
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in FREE_TASKS
        ):
            owner = ast.unparse(node.func.value)
            assert "asyncio" not in owner and "loop" not in owner, f"{name(path)}:{node.lineno}: {owner}"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_bytes_that_are_no_text_are_caught_where_decoding_is(path: Path) -> None:
    """msgspec raises another class for them: `model.codec.UNREADABLE` names all."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = ast.unparse(node.type)
            alone = "msgspec.DecodeError" in caught and "UnicodeDecodeError" not in caught
            assert not alone, f"{name(path)}:{node.lineno}: catch model.codec.UNREADABLE"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_files_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, f"{name(path)} is longer than 400 lines: split it by concept"
    assert ast.get_docstring(tree(path)), f"{name(path)} has no module docstring"


def test_top_level_packages_do_not_shadow_an_installed_one() -> None:
    from importlib.metadata import packages_distributions

    for package, owners in packages_distributions().items():
        if package in PACKAGES:
            assert set(owners) == {"flota"}, f"{package} is also brought by {owners}"
    assert not set(PACKAGES) & set(sys.stdlib_module_names)
