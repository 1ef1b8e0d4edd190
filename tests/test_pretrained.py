"""What leaves a run comes back the same or not at all: the card works as written, what is damaged or foreign is refused in words."""

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import condgen
from condgen import drawing, models, pretrained
from condgen.conditions import Attributes, Box, Label, Text
from condgen.errors import BadInput
from condgen.model import Optimizer, Run, Sampler
from condgen.models.ae import AE
from condgen.models.cgan import CGAN
from condgen.models.cvae import CVAE
from condgen.models.gan import GAN

SCHEMA = {"digit": Label(("zero", "one", "two")), "face": Attributes(("smile", "age"), (0, 18), (1, 90), (True, False)), "caption": Text(8)}
FILES = {"config.json", "model.safetensors", "rows.safetensors", "README.md"}
SECTIONS = ["What can be asked", "Use", "Training", "Evaluation", "Limits"]
RUN = Run(
    "cgan.CGAN",
    "digits",
    optimizers={"*": Optimizer(lr=3e-4, schedule="late")},
    half_life_images=500,
    name="cgan-tiny",
    source="equation (2)",
)
METRIC = {"value": 0.97, "reported": (132, 1.8), "ceiling": 0.99, "control": None, "n": 100, "provenance": "judge-v1:abc|n=100"}
EVALUATION = {"preset": "cgan-tiny", "metrics": {"class_consistency": METRIC}, "machine": "a test", "seed": 0}
FACTS = {"run": RUN.to_json(), "data": "ab12", "step": 77, "seconds": 12.4, "evaluation": EVALUATION}


def tiny(seed: int = 0) -> CGAN:
    torch.manual_seed(seed)
    return CGAN((1, 8, 8), SCHEMA, z_dim=3, width=4).eval().requires_grad_(False)


@pytest.fixture
def saved(workplace: Path) -> Path:
    """A saved model in the current folder."""
    tiny().save_pretrained("saved", FACTS)
    return workplace / "saved"


def change(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def refused(folder: object, says: str) -> str:
    with pytest.raises(BadInput, match=says) as caught:
        condgen.load(folder)
    text = str(caught.value)
    assert "Traceback" not in text and len(text) < 2000
    return text


# --- what is written ----------------------------------------------------------------------------------------------------------


def test_what_is_written(saved):
    assert {p.name for p in saved.iterdir()} == FILES
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in saved.iterdir()), "others may read what is shared"
    config = json.loads((saved / "config.json").read_text())
    assert config["library"] == "condgen" and config["model"] == "cgan.CGAN" and config["options"] == {"z_dim": 3, "width": 4}
    assert config["step"] == 77 and Run.from_json(config["run"]).optimizers == RUN.optimizers
    assert "evaluation" not in config and b"pickle" not in (saved / "model.safetensors").read_bytes()


def test_saving_again_replaces_whole(saved):
    tiny(seed=1).save_pretrained("saved")
    assert {p.name for p in saved.iterdir()} == FILES
    again = condgen.load("saved")
    assert torch.equal(again.sample(n=2, seed=0), tiny(seed=1).sample(n=2, seed=0))


def test_rows_travel_but_not_too_many(workplace):
    model = tiny()
    n = 100_000
    model.rows = {k: c.uniform(n) for k, c in SCHEMA.items()}
    model.save_pretrained("saved")
    assert (workplace / "saved/rows.safetensors").stat().st_size < pretrained.ROWS_BYTES + 4096
    rows = condgen.load("saved").rows
    assert len({len(v) for v in rows.values()}) == 1 and all(torch.equal(v, model.rows[k][: len(v)]) for k, v in rows.items())


def test_what_was_loaded_is_for_use(saved):
    model = condgen.load(saved)
    assert not model.training and not any(p.requires_grad for p in model.parameters()) and not hasattr(model, "D")
    assert torch.equal(model.sample({"digit": "two"}, n=3, seed=5), tiny().sample({"digit": "two"}, n=3, seed=5))
    model.save_pretrained("again")
    assert (saved.parent / "again/model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_what_was_loaded_remembers_its_run(saved):
    model = condgen.load(saved)
    assert model.facts == {k: v for k, v in json.loads(json.dumps(FACTS)).items() if k != "evaluation"} and tiny().facts == {}
    model.save_pretrained("again")
    before, after = (json.loads((f / "config.json").read_text()) for f in (saved, saved.parent / "again"))
    assert after == before and "77 of batch 64, seed 0" in Path("again/README.md").read_text()
    model.save_pretrained("later", {"step": 78})
    assert "78 of batch 64" in Path("later/README.md").read_text(), "what is given comes first"


def test_a_run_remembers_itself_without_its_run_json(workplace):
    run = Run("ae.AE", "digits", {"z_dim": 2, "hidden": (8,)}, split="train[:20]", batch=8, steps=2)
    list(condgen.train(run, "run"))
    assert json.loads(Path("run/config.json").read_text())["run"]["precision"] == "32", "what auto came to"
    assert "| precision | 32 |" in Path("run/README.md").read_text()
    before = condgen.load("run").facts
    assert set(before) == set(pretrained.FACTS) and before["step"] == 2
    for text in ("{", None):
        Path("run/run.json").write_text(text) if text else Path("run/run.json").unlink()
        assert condgen.load("run").facts == before and condgen.api.describe("run")["step"] == 2
    condgen.load("run").save_pretrained("my-digits")
    assert json.loads(Path("my-digits/config.json").read_text())["data"] == before["data"]


@pytest.mark.parametrize("run", [{"optimizers": 3}, {**RUN.to_json(), "batch": "many"}, {**RUN.to_json(), "stepps": 1}])
def test_nonsense_about_a_run_does_not_keep_a_model_from_loading(run, saved):
    change(saved, run=run, step="ten", data=None)
    model = condgen.load(saved)
    assert model.facts == {"seconds": 12.4}
    model.save_pretrained("again")


def test_other_data_than_was_trained_on_is_said(workplace, monkeypatch, caplog):
    from condgen.evaluation import protocols, report

    monkeypatch.setattr(protocols, "evaluate", lambda *_, **__: {"metrics": {}, "machine": "a test", "seed": 0})
    monkeypatch.setattr(report, "write_report", lambda *_: None)
    run = Run("ae.AE", "digits", {"z_dim": 2, "hidden": (8,)}, split="train[:20]", batch=8, steps=1)
    list(condgen.train(run, "run"))
    condgen.load("run").save_pretrained("other")
    condgen.api.evaluate("other")
    assert "trained on" not in caplog.text
    change(Path("other"), data="ab12")
    condgen.api.evaluate("other")
    now = condgen.api.dataset(run).fingerprint
    assert f"digits (train[:20]) is not what the model was trained on: it was ab12, is {now}" in caplog.text


def test_the_seed_chooses_what_is_left_open(saved):
    model = condgen.load(saved)
    model.rows = {"digit": torch.arange(30) % 3, "face": torch.rand(30, 2).round(), "caption": torch.arange(30 * 8).reshape(30, 8).byte()}
    one, again, other = (model.completed({"digit": "two"}, 5, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[k], again[k]) for k in one) and not torch.equal(one["caption"], other["caption"])
    for values in (one, other):
        rows = [int((model.rows["caption"] == c).all(1).nonzero()) for c in values["caption"]]
        assert len(set(rows)) == 5 and torch.equal(values["face"], model.rows["face"][rows]), "a row stays together"
    drawn = drawing.draw(model, {}, 6, seed=4)
    assert torch.equal(drawn.x, model.sample({"digit": drawn.c["digit"]}, n=6, seed=4)), "both ways see the same rows"
    assert not torch.equal(model.sample(n=5)[0], model.sample(n=5)[0]), "without a seed each time others"


@pytest.mark.parametrize(
    "asked, says",
    [
        ({"n": 2.0}, "n is 2.0; expected a whole number of at least 1"),
        ({"n": "2"}, "n is '2'; expected a whole number"),
        ({"n": 0}, "n is 0; expected a whole number of at least 1"),
        ({"n": 2, "chunk": 0}, "chunk is 0; expected a whole number of at least 1"),
        ({"n": 2, "seed": "0"}, "seed is '0'; expected a whole number of at least 0"),
        ({"n": 2, "seed": 2**63}, f"seed is {2**63}; expected a whole number of at most"),
        ({"c": ["two"]}, r"what is asked is \['two'\]; expected conditions by name"),
    ],
)
def test_what_cannot_be_drawn_is_refused(asked, says, saved):
    with pytest.raises(BadInput, match=says):
        condgen.load(saved).sample(**asked)


def test_a_class_that_no_one_could_find_again_is_not_saved(workplace):
    class Mine(Sampler):
        def turns(self, batch, step):
            yield {}

        def prior(self, n, c):
            return self.noise.normal(n, 1)

        def decode(self, z, c):
            return z

    with pytest.raises(BadInput, match=r"Mine is defined in .*test_pretrained, not in a file below condgen\.models"):
        Mine((1,), {}).save_pretrained("saved")
    assert not Path("saved/config.json").exists()


# --- the card -----------------------------------------------------------------------------------------------------------------


def python_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return code


def test_the_card_has_its_sections_and_what_the_run_said(saved):
    card = (saved / "README.md").read_text()
    assert re.findall(r"^## (.+)$", card, flags=re.MULTILINE) == SECTIONS and card.count("\n# ") == 1
    for fact in (
        "# cgan-tiny",
        "Mirza & Osindero 2014",
        "ab12",
        "77 of batch 64, seed 0",
        "Adam lr 0.0003, late",
        "half-life 500",
        "12 s",
        "equation (2)",
    ):
        assert fact in card, fact
    for word in ("zero, one, two", "smile (0 or 1), age (18 to 90)", "| `caption` | Text | "):
        assert word in card, word
    assert "| class_consistency | 0.97 | 132 +- 1.8 | 0.99 | - | 100 | `judge-v1:abc" in card


def test_the_cards_front_matter_is_yaml(saved):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    front = (saved / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front) == {
        "library_name": "condgen",
        "tags": ["image-generation", "cgan", "conditional"],
        "datasets": ["digits"],
        "metrics": ["class_consistency"],
    }


def test_a_card_without_facts_says_what_is_not_known(workplace):
    tiny().save_pretrained("saved")
    card = Path("saved/README.md").read_text()
    assert re.findall(r"^## (.+)$", card, flags=re.MULTILINE) == SECTIONS
    assert "Not evaluated yet" in card and "not recorded" in card and "# cgan.CGAN" in card


def test_every_row_of_the_cards_tables_has_the_cells_of_its_head(saved):
    tables = re.findall(r"(?:^\|.*\n)+", (saved / "README.md").read_text(), flags=re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_a_name_with_a_bar_does_not_break_the_cards_table(workplace):
    CGAN((1, 8, 8), {"digit": Label(("a|b", "c\nd"))}, z_dim=3, width=4).save_pretrained("saved")
    row = next(line for line in Path("saved/README.md").read_text().splitlines() if line.startswith("| `digit`"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4 and row.endswith("|")


@pytest.mark.parametrize(
    "model",
    [
        lambda: CGAN((1, 8, 8), SCHEMA, z_dim=3, width=4),
        lambda: GAN((1, 8, 8), z_dim=3, width=4),
        lambda: CVAE((2,), {"look": Box()}, z_dim=3, hidden=(8,), likelihood="normal"),
        lambda: AE((1, 8, 8), z_dim=3, hidden=(8,)),
    ],
    ids=["cgan", "gan", "cvae-points", "ae"],
)
@pytest.mark.parametrize("folder", ["saved", "it's here"])
def test_the_cards_code_runs(model, folder, workplace, capsys):
    built = model()
    built.save_pretrained(folder)
    code = python_of((workplace / folder / "README.md").read_text())
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert type(names["model"]) is type(built)
    if "x" in names:
        said = re.search(r"# float \((.*)\)", code).group(1)
        assert said == ", ".join(map(str, names["x"].shape)) and names["x"].shape == (16, *built.shape)
    else:
        assert "encode" in code and capsys.readouterr().out


# --- what is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "weights.pkl", "pytorch_model.bin", "no-ending"])
def test_a_pickle_is_refused_unread(name, workplace):
    bomb = Path(name)
    bomb.write_bytes(b"\x80\x04\x95cos\nsystem\n(S'touch exploded'\ntR.")
    assert name in refused(name, "is a pickle: reading one can run any code in it, so it is never read")
    assert not Path("exploded").exists()


def test_a_torch_archive_under_another_name_is_refused(workplace):
    Path("weights").write_bytes(b"PK\x03\x04" + bytes(100))
    refused("weights", "is a pickle")


def test_a_folder_with_only_a_pickle_is_refused(workplace):
    Path("old").mkdir()
    Path("old/pytorch_model.bin").write_bytes(b"\x80\x02")
    refused("old", "pytorch_model.bin is a pickle.* Give a folder with config.json and model.safetensors")


def test_what_is_no_model_is_refused(workplace):
    Path("empty").mkdir()
    refused("empty", "holds neither a config.json nor checkpoints: it is no model and no run")
    Path("notes.txt").write_text("hello")
    refused("notes.txt", "is a file; give the folder")
    refused("nowhere", "unknown model or run 'nowhere'")
    refused("../../etc/passwd/x", "there is no folder")


@pytest.mark.parametrize(
    "text, says",
    [
        ("{", "cannot be read"),
        ("[]", "is not a config of condgen"),
        ('{"library": "diffusers"}', "is not a config of condgen"),
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"library": "condgen"}', "unknown model ''"),
    ],
    ids=["cut", "list", "foreign", "empty", "deep", "bare"],
)
def test_a_config_that_is_none_is_refused(text, says, saved):
    (saved / "config.json").write_text(text)
    refused(saved, says)


def test_a_config_of_bytes_or_of_more_than_a_megabyte_is_refused(saved):
    (saved / "config.json").write_bytes(b"\xff\xfe\x00\x01")
    refused(saved, "cannot be read")
    (saved / "config.json").write_text(" " * (1 << 20) + "{}")
    refused(saved, f"has {(1 << 20) + 2} bytes; a config has at most {1 << 20}")


@pytest.mark.parametrize(
    "model",
    [
        "cgna.CGAN",
        "cgan.CGNA",
        "cgan.Sampler",
        "os.system",
        "../../evil.Model",
        "condgen.models.cgan.CGAN",
        "cgan.CGAN.turns",
        "__init__.x",
        "",
        3,
        None,
        ["cgan"],
    ],
    ids=str,
)
def test_a_config_of_an_unknown_class_is_refused(model, saved):
    change(saved, model=model)
    refused(saved, "unknown model")


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"options": {"z_dim": 4, "width": 4}}, r"does not fit its config: G\..* has shape \(.*\), the config asks for \("),
        ({"options": {"z_dim": 3, "width": 8}}, "does not fit its config: .*and .* more"),
        ({"options": {"z_dim": 10**9, "width": 10**6}}, "does not fit its config"),
        ({"options": {"z_dim": 10**40}}, "does not fit"),
        ({"options": {"z_dim": 0}}, "z_dim is 0"),
        ({"options": {"z_dim": -3}}, "z_dim is -3"),
        ({"options": {"z_dim": "3"}}, "does not fit cgan.CGAN"),
        ({"options": {"zdim": 3}}, "does not fit cgan.CGAN: .*zdim"),
        ({"options": [1]}, "does not fit cgan.CGAN"),
        ({"options": None}, "does not fit cgan.CGAN"),
        ({"shape": [1, 2, 2]}, "at least 4 px"),
        ({"shape": "large"}, "does not fit"),
        ({"shape": None}, "does not fit"),
        ({"shape": [1, 10**9, 10**9]}, "does not fit"),
        ({"shape": [-1, 8, 8]}, "does not fit"),
        ({"schema": {}}, "needs at least one condition"),
        ({"schema": []}, "schema"),
        ({"schema": {"digit": {"kind": "Label", "names": ["a", "b"]}}}, "does not fit its config"),
        ({"schema": {"digit": {"kind": "Label", "names": 5}}}, "does not fit"),
        ({"schema": {"digit": {"kind": "Lebel", "names": ["a"]}}}, "'Lebel': did you mean 'Label'"),
        ({"schema": {"look": {"kind": "Vector", "dim": -1}}}, "does not fit"),
        ({"schema": {"look": {"kind": "Vector", "dim": "wide"}}}, "does not fit"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_memory_is_taken(fields, says, saved):
    change(saved, **fields)
    refused(saved, says)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["kind", "names", "dim", "digit", "z_dim", "width"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["model", "shape", "options", "schema"]), json_values, min_size=1))
def test_whatever_a_config_says_it_loads_or_is_refused(saved, fields):
    original = (saved / "config.json").read_text()
    try:
        change(saved, **fields)
        condgen.load(saved)
    except BadInput:
        pass
    finally:
        (saved / "config.json").write_text(original)


@pytest.mark.parametrize("cut", [0, 4, 8, 40, 400, -1])
def test_weights_that_were_cut_off_are_refused(cut, saved):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[:cut])
    refused(saved, "model.safetensors is no whole safetensors file")


@pytest.mark.parametrize("start", [b"\x80\x04pickled", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"[]"])
def test_weights_that_are_something_else_are_refused(start, saved):
    (saved / "model.safetensors").write_bytes(start + bytes(64))
    refused(saved, "is no whole safetensors file")


@pytest.mark.parametrize("name", ["model.safetensors", "rows.safetensors"])
def test_a_missing_file_is_named(name, saved):
    (saved / name).unlink()
    refused(saved, f"{name} is missing")


def test_weights_of_another_make_up_are_refused(saved):
    weights = load_file(saved / "model.safetensors")
    first = next(iter(weights))
    save_file({k: v for k, v in weights.items() if k != first}, saved / "model.safetensors")
    refused(saved, f"{re.escape(first)} is missing")
    save_file({**weights, "D.last.weight": torch.zeros(2)}, saved / "model.safetensors")
    refused(saved, "D.last.weight is unknown")


def test_weights_that_are_no_floats_are_refused_or_converted(saved):
    weights = load_file(saved / "model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, saved / "model.safetensors")
    model = condgen.load(saved)
    assert {p.dtype for p in model.parameters()} == {torch.float32} and model.sample(n=2, seed=0).isfinite().all()


@pytest.mark.parametrize(
    "rows, says",
    [
        ({"digit": torch.tensor([7, 0])}, "'digit': row 0 holds index 7, valid are 0 to 2"),
        ({"digit": torch.tensor([0.0, 1.0])}, "'digit': expected values of torch.int64"),
        ({"face": torch.tensor([[1.0, float("nan")]] * 2)}, "'face': row 0 .*not a finite number"),
        ({"face": torch.zeros(2, 3)}, "'face': expected values of shape"),
        ({"caption": None}, "'caption' is missing"),
        ({"caption": torch.zeros(5, 8, dtype=torch.uint8)}, "rows"),
        ({k: c.uniform(1)[:0] for k, c in SCHEMA.items()}, "rows"),
    ],
    ids=["label", "dtype", "nan", "shape", "missing", "uneven", "empty"],
)
def test_rows_that_do_not_fit_the_schema_are_refused(rows, says, saved):
    changed = {**{k: c.uniform(2) for k, c in SCHEMA.items()}, **rows}
    save_file({k: v for k, v in changed.items() if v is not None}, saved / "rows.safetensors")
    refused(saved, says)


def test_the_command_line_refuses_with_2(saved, condgen):
    (saved / "model.safetensors").write_bytes(b"")
    answer = condgen("sample", "saved", "--out", "x.npz")
    assert answer.code == 2 and answer.err.startswith("condgen: ") and "no whole safetensors file" in answer.err and answer.out == ""
    Path("old.pt").write_bytes(b"\x80\x02")
    assert "is a pickle" in condgen("sample", "old.pt", "--out", "x.npz").err


# --- the hub ------------------------------------------------------------------------------------------------------------------


class FakeHub:
    """Keeps what it is told."""

    def __init__(self):
        self.asked: list[tuple] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id, *, private, exist_ok):
        self.asked.append(("create_repo", repo_id, private, exist_ok))
        return f"hub://{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.asked.append(("upload_folder", repo_id, commit_message))
        self.files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def test_a_push_uploads_what_save_writes_and_nothing_else(hub, workplace):
    address = tiny().push_to_hub("someone/small-digits", private=True, facts=FACTS)
    assert address == "hub://someone/small-digits"
    assert [a[:2] for a in hub.asked] == [("create_repo", "someone/small-digits"), ("upload_folder", "someone/small-digits")]
    assert hub.asked[0][2:] == (True, True) and set(hub.files) == FILES and list(workplace.iterdir()) == []
    assert "condgen.load('someone/small-digits')" in hub.files["README.md"].decode(), "the card's code loads it from where it is"
    folder = workplace / "down"
    folder.mkdir()
    for name, content in hub.files.items():
        (folder / name).write_bytes(content)
    assert torch.equal(condgen.load(folder).sample(n=2, seed=0), tiny().sample(n=2, seed=0))


def test_a_name_on_the_hub_is_fetched_by_its_four_files(saved, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot_download(name, *, revision, allow_patterns):
        asked.update(name=name, revision=revision, files=set(allow_patterns))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = condgen.load("someone/small-digits", revision="v1")
    assert asked == {"name": "someone/small-digits", "revision": "v1", "files": FILES} and models.path(model) == "cgan.CGAN"


def test_a_loaded_model_is_pushed_without_the_place_of_its_data(hub, saved):
    change(saved, run={**RUN.to_json(), "data": "/home/someone/birds"})
    condgen.load(saved).push_to_hub("someone/birds")
    assert json.loads(hub.files["config.json"])["run"]["data"] == "birds"
    assert not any(b"/home/someone" in content for content in hub.files.values())


@pytest.mark.parametrize("name", ["../typo", "./typo", "./a/typo", "/typo", "~/typo", "runs/cgan-digit", "a/b/c", "saved/typo"])
def test_a_path_that_is_not_there_is_never_asked_of_the_hub(name, saved, monkeypatch, condgen):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    Path("runs/cgan-digits").mkdir(parents=True)
    Path("runs/cgan-digits/run.json").write_text("{}")
    answer = condgen("sample", name)
    assert answer.code == 2 and answer.err.startswith(f"condgen: there is no folder {name}: ") and "Valid: cgan-digits" in answer.err
    assert ("did you mean 'cgan-digits'?" in answer.err) == (name == "runs/cgan-digit")


def test_a_name_that_the_hub_cannot_have_is_refused(workplace):
    refused("some--one/digits", "is no folder here, and the hub does not give it")


@pytest.mark.parametrize("error", [LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, RuntimeError])
def test_a_hub_that_does_not_answer_is_said(error, workplace, monkeypatch):
    import huggingface_hub

    def snapshot_download(*args, **kwargs):
        raise error("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    refused("someone/small-digits", "is no folder here, and the hub does not give it: no connection")
