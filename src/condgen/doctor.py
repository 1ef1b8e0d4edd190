"""What the machine offers, and the known traps on it, each with its remedy: `condgen doctor`.

`look` reads the machine and is the only impure part; `doctor` judges what it was given, so that a test can hand it any machine.
torchvision is never imported here: a mismatched one fails while importing, and would take this process with it.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PROBLEM, WARNING, NOTE = "problem", "warning", "note"

# What condgen asks for where it runs from a checkout that was never installed; else its own metadata is read.
CORE = ("torch", "numpy", "pillow", "safetensors", "huggingface-hub", "lightning-fabric", "scikit-learn", "rich", "matplotlib")
EXTRAS = {
    "parquet": (("pyarrow",), "folders with metadata.parquet"),
}
OTHERS = ("lightning", "pytorch-lightning", "torchvision", "torchmetrics", "torch-fidelity")
COMPROMISED = {name: {"2.6.2", "2.6.3"} for name in ("lightning", "pytorch-lightning", "lightning-fabric")}
ADVISORY = "GHSA-w37p-236h-pfx3"
BF16_FLAGS = ("avx512_bf16", "amx_bf16")
GB = 2**30
LITTLE_DISK, NO_DISK = 2 * GB, GB // 10


@dataclass(frozen=True)
class Machine:
    """What `look` found. Every field can be set by hand.

    Args:
        versions: distribution -> version, None where it is not installed; "python" among them.
        requires: condgen's core requirements, as in its metadata ("torch>=2.8").
        cpu: name of the processor.
        cpu_flags: what it computes, as /proc/cpuinfo names it.
        cores: that this process may use.
        memory: bytes of main memory that this process may use.
        cuda: one mapping a device: name, memory (bytes), capability.
        nvidia: whether the machine has an NVIDIA driver, whatever torch thinks.
        torch_error: what `import torch` raised; None where it works or is absent.
        torchvision_error: last line of what `import torchvision` said in a process of its own; None where it works or is absent.
        data: $CONDGEN_DATA, None where it is not set.
        data_exists: whether it is a folder.
        cache: where prepared data and judges are kept; empty where that is not known, for want of torch.
        cache_free: bytes free there, None where it cannot be written.
    """

    versions: Mapping[str, str | None]
    requires: tuple[str, ...] = ()
    cpu: str = "unknown"
    cpu_flags: frozenset[str] = frozenset()
    cores: int = 1
    memory: int = 0
    cuda: tuple[Mapping[str, Any], ...] = ()
    nvidia: bool = False
    torch_error: str | None = None
    torchvision_error: str | None = None
    data: str | None = None
    data_exists: bool = False
    cache: str = ""
    cache_free: int | None = None


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing. `level` is "problem" (condgen will fail), "warning" (something else will) or "note"."""

    level: str
    what: str
    remedy: str


def doctor(machine: Machine | None = None) -> dict[str, Any]:
    """Versions, devices, folders and findings, as JSON data.

    Args:
        machine: what to judge; this one by default, which imports torch and takes a few seconds.

    Returns:
        `{"ok", "versions", "devices", "folders", "findings": [{"level", "what", "remedy"}]}`; `ok` is False only for a problem.
    """
    m = look() if machine is None else machine
    order = {PROBLEM: 0, WARNING: 1, NOTE: 2}
    findings = sorted((f for check in CHECKS for f in check(m)), key=lambda f: order[f.level])
    required = set(map(name_of, m.requires))
    return {
        "ok": all(f.level != PROBLEM for f in findings),
        "versions": {name: v for name, v in m.versions.items() if v or name in required},
        "devices": devices(m),
        "folders": {"data": m.data, "cache": m.cache, "cache_free": m.cache_free},
        "findings": [asdict(f) for f in findings],
    }


def text(report: Mapping[str, Any]) -> str:
    """The report of `doctor` for a person."""
    d, folders = report["devices"], report["folders"]
    rows = ["versions   " + ", ".join(f"{name} {version or 'missing'}" for name, version in report["versions"].items())]
    rows.append(f"processor  {d['cpu']}, {d['cores']} cores, {d['memory'] / GB:.1f} GB, bf16 {'yes' if d['bf16'] else 'no'}")
    rows += [f"cuda       {g['name']}, {g['memory'] / GB:.0f} GB, capability {g['capability']}" for g in d["cuda"]] or ["cuda       none"]
    rows.append(f"data       {folders['data'] or 'CONDGEN_DATA is not set'}")
    free = folders["cache_free"]
    rows.append(f"cache      {folders['cache'] or 'not known'}, {'not writable' if free is None else f'{free / GB:.1f} GB free'}")
    rows += [f"{f['level']:<10} {f['what']}\n           -> {f['remedy']}" for f in report["findings"]]
    return "\n".join([*rows, "all well" if report["ok"] else "something will fail: see the problems above"])


def devices(m: Machine) -> dict[str, Any]:
    """`bf16` says whether the processor itself computes bfloat16; a GPU's answer stands with it."""
    cuda = [{**g, "bf16": int(str(g["capability"]).split(".")[0]) >= 8} for g in m.cuda]
    return {"cpu": m.cpu, "cores": m.cores, "memory": m.memory, "bf16": bool(m.cpu_flags.intersection(BF16_FLAGS)), "cuda": cuda}


# --- checks: each looks at the machine and says what it finds ------------------------------------------------------------------


def requirements(m: Machine) -> Iterator[Finding]:
    for requirement in m.requires:
        name, asked = name_of(requirement), re.findall(r"(>=|!=)\s*([\d.]+)", requirement)
        installed = m.versions.get(name)
        least = next((v for sign, v in asked if sign == ">="), None)
        if installed is None:
            yield Finding(PROBLEM, f"{name} is not installed", f"pip install '{requirement}'")
        elif least and numbers(installed) < numbers(least):
            yield Finding(PROBLEM, f"{name} {installed} is older than {least}", f"pip install '{requirement}'")


def compromised(m: Machine) -> Iterator[Finding]:
    for name, versions in COMPROMISED.items():
        if m.versions.get(name) in versions:
            what = f"{name} {m.versions[name]} is a compromised release ({ADVISORY})"
            yield Finding(PROBLEM, what, f"pip uninstall {name}, change every secret this machine held, then pip install '{name}>=2.6.4'")


def torch_imports(m: Machine) -> Iterator[Finding]:
    if m.torch_error:
        what = f"torch {m.versions.get('torch')} is installed but does not import: {m.torch_error}"
        yield Finding(PROBLEM, what, "pip install --force-reinstall torch, of the build that fits this machine")


def torchvision_fits(m: Machine) -> Iterator[Finding]:
    """torch 2.N belongs to torchvision 0.(N + 15), of the same build (`+cpu`, `+cu130`, or both without)."""
    torch, vision = m.versions.get("torch"), m.versions.get("torchvision")
    if not torch or not vision:
        return
    fit, reasons = fitting_torchvision(torch), []
    if fit and numbers(vision)[:2] != numbers(fit)[:2]:
        reasons.append(f"it belongs to another torch (torch {torch} needs torchvision {fit}.*)")
    if m.torchvision_error:
        reasons.append(f"it does not import: {m.torchvision_error}")
    if reasons:
        what = f"torchvision {vision}: {'; '.join(reasons)}. condgen does not use it, but torchmetrics and others do"
        yield Finding(WARNING, what, f"pip uninstall torchvision, or install {fit or 'the one'}.* from the index that torch came from")


def fidelity_drags(m: Machine) -> Iterator[Finding]:
    broken = not m.versions.get("torchvision") or m.torchvision_error
    if m.versions.get("torch-fidelity") and m.versions.get("torchmetrics") and broken:
        what = "torch-fidelity makes torchmetrics import torchvision, which is not usable here: `import torchmetrics` fails"
        yield Finding(WARNING, what, "pip uninstall torch-fidelity")


def gpu_is_used(m: Machine) -> Iterator[Finding]:
    if m.nvidia and not m.cuda and m.versions.get("torch") and not m.torch_error:
        what = f"there is an NVIDIA driver, but torch {m.versions.get('torch')} sees no GPU"
        yield Finding(WARNING, what, "install the CUDA build of torch for this driver, and look at CUDA_VISIBLE_DEVICES")


def folders_work(m: Machine) -> Iterator[Finding]:
    if m.data is not None and not m.data_exists:
        yield Finding(WARNING, f"CONDGEN_DATA is {m.data}, which is no folder", "make it, or unset the variable")
    if m.cache and m.cache_free is None:
        yield Finding(PROBLEM, f"the cache {m.cache} cannot be written", "make it writable, or set CONDGEN_CACHE to a folder that is")
    elif m.cache_free is not None and m.cache_free < LITTLE_DISK:
        level = PROBLEM if m.cache_free < NO_DISK else WARNING
        yield Finding(level, f"{m.cache_free / GB:.2f} GB are free at {m.cache}", "free some, or set CONDGEN_CACHE to a larger disk")


def extras(m: Machine) -> Iterator[Finding]:
    for extra, (names, purpose) in EXTRAS.items():
        if missing := sorted(n for n in names if not m.versions.get(n)):
            yield Finding(NOTE, f"{' and '.join(missing)} not installed, needed for {purpose}", f"pip install 'condgen[{extra}]'")


CHECKS = (requirements, compromised, torch_imports, torchvision_fits, fidelity_drags, gpu_is_used, folders_work, extras)


def fitting_torchvision(torch: str) -> str | None:
    """The torchvision that belongs to a torch, None where no rule is known.

    >>> fitting_torchvision("2.13.0+cpu")
    '0.28'
    """
    major, minor, *_ = (*numbers(torch), 0, 0)
    return f"0.{minor + 15}" if major == 2 else None


def numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without what is local, pre- or post-release.

    >>> numbers("2.13.0rc1+cpu") < numbers("2.13.1")
    True
    """
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(n) for n in release.group().split(".")) if release else ()


def name_of(requirement: str) -> str:
    """Name of the distribution, as registries write it.

    >>> name_of("huggingface_hub!=0.31,>=0.30")
    'huggingface-hub'
    """
    found = re.match(r"[\w.-]+", requirement)
    return (found.group() if found else requirement).replace("_", "-").lower()


# --- looking ------------------------------------------------------------------------------------------------------------------


def look() -> Machine:
    """This machine. Imports torch; asks a second process about torchvision where there is one."""
    requires = own_requirements()
    versions: dict[str, str | None] = {"python": platform.python_version()}
    optional = [name for names, _ in EXTRAS.values() for name in names]
    versions |= {name: installed(name) for name in ("condgen", *map(name_of, requires), *OTHERS, *optional)}
    name, flags = processor()
    data, cache = os.environ.get("CONDGEN_DATA"), cache_place()
    cuda, torch_error = cuda_devices() if versions["torch"] else ((), None)
    return Machine(
        versions=versions,
        requires=requires,
        cpu=name,
        cpu_flags=flags,
        cores=usable_cores(),
        memory=usable_memory(),
        cuda=cuda,
        nvidia=Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
        torch_error=torch_error,
        torchvision_error=import_error("torchvision") if versions["torchvision"] else None,
        data=data,
        data_exists=bool(data) and Path(str(data)).is_dir(),
        cache=str(cache or ""),
        cache_free=free_bytes(cache) if cache else None,
    )


def own_requirements() -> tuple[str, ...]:
    try:
        listed = metadata.requires("condgen") or []
    except metadata.PackageNotFoundError:
        return CORE
    return tuple(r for r in listed if ";" not in r)


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """Name and flags of the processor; ("what `platform` knows", no flags) where there is no /proc."""
    try:
        rows = [row.partition(":") for row in cpuinfo.read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    said = {key.strip(): value.strip() for key, _, value in reversed(rows)}
    return said.get("model name") or platform.machine(), frozenset((said.get("flags") or said.get("Features") or "").split())


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes: the machine's, or what its container may use of them."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def cuda_devices() -> tuple[tuple[dict[str, Any], ...], str | None]:
    """The devices that torch sees, and what importing it raised, which may be any error of a library that does not fit."""
    try:
        import torch
    except Exception as error:
        return (), f"{type(error).__name__}: {error}"
    if not torch.cuda.is_available():
        return (), None
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple({"name": p.name, "memory": p.total_memory, "capability": f"{p.major}.{p.minor}"} for p in found), None


def cache_place() -> Path | None:
    """The cache folder; None where the data layer, which knows it, cannot be imported."""
    try:
        from condgen.data.cache import cache_folder
    except Exception:
        return None
    return cache_folder()


def import_error(module: str, seconds: float = 120) -> str | None:
    """The last line that `import module` says in a process of its own, None where it succeeds."""
    try:
        done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"no answer in {seconds:g} s"
    said = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else said[-1] if said else f"exit code {done.returncode}"


def free_bytes(folder: Path) -> int | None:
    """Bytes free where `folder` is or would be, None where nothing can be written there."""
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(nearest).free if os.access(nearest, os.W_OK) else None
