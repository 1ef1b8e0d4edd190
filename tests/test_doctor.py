"""`doctor` judges machines made up here: each trap is found where it is, and only there."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from condgen.doctor import BF16_FLAGS, GB, Machine, doctor, free_bytes, import_error, installed, look, numbers, processor, text

WELL = Machine(
    versions={
        "python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.4.6", "lightning-fabric": "2.6.6", "pyarrow": "26.0.1",
        "tensorboard": "2.21.0", "datasets": "5.2.0", "webdataset": "1.0.2", "torchmetrics": "1.9.0",
    },
    requires=("torch>=2.8", "numpy>=2.0", "lightning-fabric!=2.6.2,!=2.6.3,>=2.5"),
    cpu="Some CPU", cpu_flags=frozenset({"avx2"}), cores=2, memory=8 * GB, cache="/somewhere", cache_free=50 * GB,
)  # fmt: skip


def machine(versions: dict | None = None, **fields) -> Machine:
    return dataclasses.replace(WELL, versions={**WELL.versions, **(versions or {})}, **fields)


def found(m: Machine) -> list[tuple[str, str]]:
    return [(f["level"], f["what"]) for f in doctor(m)["findings"]]


def test_a_healthy_machine_has_no_findings():
    report = doctor(WELL)
    assert report["ok"] and report["findings"] == []
    assert "all well" in text(report)


TRAPS = {
    "missing": (machine({"numpy": None}), "problem", "numpy is not installed"),
    "old": (machine({"torch": "2.7.1"}), "problem", "torch 2.7.1 is older than 2.8"),
    "lightning-fabric 2.6.2": (machine({"lightning-fabric": "2.6.2"}), "problem", "lightning-fabric 2.6.2 is a compromised release"),
    "lightning 2.6.3": (machine({"lightning": "2.6.3"}), "problem", "lightning 2.6.3 is a compromised release"),
    "torch broken": (machine(torch_error="OSError: libgomp"), "problem", "does not import: OSError: libgomp"),
    "torchvision of another torch": (machine({"torchvision": "0.26.0"}), "warning", "needs torchvision 0.28.*"),
    "torchvision of another build": (
        machine({"torchvision": "0.28.0"}, torchvision_error="operator torchvision::nms does not exist"),
        "warning",
        "does not import: operator torchvision::nms",
    ),
    "torch-fidelity": (machine({"torch-fidelity": "0.4.0"}), "warning", "torch-fidelity makes torchmetrics import torchvision"),
    "gpu unused": (machine(nvidia=True), "warning", "sees no GPU"),
    "no data folder": (machine(data="/nowhere"), "warning", "CONDGEN_DATA is /nowhere"),
    "cache read-only": (machine(cache_free=None), "problem", "cannot be written"),
    "little disk": (machine(cache_free=GB), "warning", "1.00 GB are free"),
    "no disk": (machine(cache_free=1000), "problem", "0.00 GB are free"),
    "no parquet": (machine({"pyarrow": None}), "note", "pyarrow not installed"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_found_alone_with_its_remedy(name):
    m, level, words = TRAPS[name]
    report = doctor(m)
    assert [f["level"] for f in report["findings"]] == [level]
    assert words in report["findings"][0]["what"]
    assert report["ok"] == (level != "problem")
    assert report["findings"][0]["remedy"] in text(report)


FITTING = [("2.13.0+cpu", "0.28.0+cpu"), ("2.11.0+cu130", "0.26.1+cu130"), ("2.8.0", "0.23.0"), ("3.0.0", "9.9")]


@pytest.mark.parametrize("torch, vision", FITTING)
def test_a_torchvision_that_fits_is_no_finding(torch, vision):
    assert found(machine({"torch": torch, "torchvision": vision})) == []


def test_torch_fidelity_with_a_working_torchvision_is_no_finding():
    assert found(machine({"torch-fidelity": "0.4.0", "torchvision": "0.28.0"})) == []


def test_problems_come_first_and_the_report_is_plain_data():
    report = doctor(machine({"pyarrow": None, "torchvision": "0.1", "numpy": None}))
    assert [f["level"] for f in report["findings"]] == ["problem", "warning", "note"]
    assert json.loads(json.dumps(report)) == report
    assert report["versions"]["numpy"] is None and "pyarrow" not in report["versions"]


@pytest.mark.parametrize("flag", BF16_FLAGS)
def test_bf16_of_the_processor(flag):
    assert doctor(machine(cpu_flags=frozenset({"avx2", flag})))["devices"]["bf16"]
    assert not doctor(WELL)["devices"]["bf16"]


def test_bf16_of_a_gpu_comes_with_capability_8():
    cuda = tuple({"name": n, "memory": 80 * GB, "capability": c} for n, c in (("old", "7.5"), ("A", "8.0"), ("B", "10.0")))
    report = doctor(machine(cuda=cuda, nvidia=True))
    assert [g["bf16"] for g in report["devices"]["cuda"]] == [False, True, True]
    assert report["findings"] == [] and "old, 80 GB" in text(report)


def test_processor_is_read_from_cpuinfo(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nmodel name : Fast 9000\nflags : fpu avx512_bf16\n\nprocessor : 1\nmodel name : Other\nflags : x\n")
    assert processor(file) == ("Fast 9000", frozenset({"fpu", "avx512_bf16"}))
    name, flags = processor(tmp_path / "absent")
    assert isinstance(name, str) and flags == frozenset()


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_numbers_ignore_what_is_no_release():
    assert numbers("2.10") > numbers("2.9.1") and numbers("2.13.0+cpu") == numbers("2.13.0rc1") == (2, 13, 0) and numbers("x") == ()


def test_import_error_names_what_fails_and_nothing_where_it_works():
    assert import_error("json") is None
    assert "no_such_module" in str(import_error("no_such_module"))
    assert "no answer" in str(import_error("time; time.sleep(30)", seconds=0.2))
    assert installed("no-such-distribution") is None


def test_this_machine_is_judged_without_importing_torchvision_here():
    """Whatever is installed, looking must not bring torchvision into the process that looks."""
    code = "import sys; from condgen.doctor import doctor; r = doctor(); print(r['versions']['torch'], 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [installed("torch"), "False"]


def test_without_torch_the_doctor_still_answers(tmp_path):
    """A torch that cannot be imported stands first in the path; what it raises is reported, and the exit is orderly."""
    (tmp_path / "torch.py").write_text("raise OSError('libsomething.so is missing')")
    code = "from condgen.doctor import doctor, text; r = doctor(); print(text(r), r['ok'])"
    with_path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=with_path)
    assert done.returncode == 0, done.stderr
    assert "libsomething.so is missing" in done.stdout and done.stdout.strip().endswith("False")


def test_look_reads_this_process():
    m = look()
    assert m.cores >= 1 and m.memory > 0 and m.versions["torch"] == installed("torch") and any(r.startswith("torch") for r in m.requires)
