"""A crafted archive is refused before anything in it is read."""

import io
import stat
import struct
import zipfile
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest

from condgen.data.arrays import read_npz
from condgen.data.places import open_place
from condgen.errors import BadInput


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> ZipInfo:
    info = ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = ZIP_DEFLATED
    return info


def zipped(tmp_path, *members: tuple[ZipInfo, bytes]):
    path = tmp_path / "crafted.zip"
    with ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../up.png", "a/../../up.png", "..\\up.png", "C:/windows.png", "\\\\host\\share.png"])
def test_names_that_leave_the_archive(tmp_path, name):
    with pytest.raises(BadInput, match="leaves the archive"):
        open_place(zipped(tmp_path, (member("ok.png"), b"x"), (member(name), b"x")))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices(tmp_path, kind):
    with pytest.raises(BadInput, match="link or a device"):
        open_place(zipped(tmp_path, (member("link.png", kind | 0o777), b"/etc/passwd")))


def test_a_member_that_is_a_bomb(tmp_path):
    with pytest.raises(BadInput, match="as a bomb does"):
        open_place(zipped(tmp_path, (member("zeros.png"), b"\0" * (8 << 20))))


def test_many_members_that_are_a_bomb_together(tmp_path, monkeypatch):
    monkeypatch.setattr("condgen.data.places.TOTAL_RATIO_FROM_BYTES", 1 << 20)
    members = [(member(f"{i}.png"), b"\0" * (200 << 10)) for i in range(20)]
    with pytest.raises(BadInput, match="refused as a bomb"):
        open_place(zipped(tmp_path, *members))


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr("condgen.data.places.MAX_MEMBERS", 3)
    with pytest.raises(BadInput, match="4 members"):
        open_place(zipped(tmp_path, *((member(f"{i}.png"), b"") for i in range(4))))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_appears_twice(tmp_path):
    with pytest.raises(BadInput, match="appears twice"):
        open_place(zipped(tmp_path, (member("a.png"), b"1"), (member("a.png"), b"2")))


def test_an_encrypted_member(tmp_path):
    path = zipped(tmp_path, (member("a.png"), b"secret"))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="encrypted"):
        open_place(path)


def test_a_member_that_lies_about_its_size(tmp_path):
    """The directory says 10 bytes; no more are unpacked, and the checksum tells."""
    path = zipped(tmp_path, (member("a.png"), b"\0" * 5000))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, 10)
    path.write_bytes(bytes(content))
    with pytest.raises(OSError):
        open_place(path).read("a.png")


def test_what_is_no_zip(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"hello")
    with pytest.raises(BadInput, match="neither a folder, a zip"):
        open_place(path)
    zipped(tmp_path, (member("a.png"), b"x" * 1000))
    whole = (tmp_path / "crafted.zip").read_bytes()
    path.write_bytes(whole[: len(whole) - 30])
    with pytest.raises(BadInput):
        open_place(path)


def test_the_zipped_folder_itself_is_no_class(tmp_path):
    place = open_place(zipped(tmp_path, (member("birds/"), b""), (member("birds/cat/1.png"), b"1"), (member("birds/dog/2.png"), b"2")))
    assert place.files == ["cat/1.png", "dog/2.png"] and place.folders == ["cat", "dog"]
    assert place.read("dog/2.png") == b"2"


def test_a_folder_and_its_zip_look_alike(tmp_path):
    folder = tmp_path / "set"
    (folder / "cat").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / ".git").mkdir()
    for name in ("cat/1.png", "metadata.csv", ".git/x.png", ".DS_Store"):
        (folder / name).write_bytes(name.encode())
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    for place in (open_place(folder), open_place(tmp_path / "set.zip")):
        assert place.files == ["cat/1.png", "metadata.csv"] and place.folders == ["cat", "empty"]
        assert place.read("cat/1.png") == b"cat/1.png"


def test_linked_folders_are_read_once(tmp_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "1.png").write_bytes(b"1")
    (tmp_path / "set" / "a" / "round").symlink_to(tmp_path / "set")
    assert open_place(tmp_path / "set").files == ["a/1.png"]


# --- npz ---


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def test_object_arrays_are_refused(tmp_path):
    path = npz(tmp_path, x=np.zeros((2, 3), np.float32), label=np.array(["a", {"b": 1}], dtype=object))
    with pytest.raises(BadInput, match="'label' is of dtype object"):
        read_npz(path)


def with_header(tmp_path, shape: tuple[int, ...], body: bytes):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    path = tmp_path / "a.npz"
    with ZipFile(path, "w") as archive:
        archive.writestr("x.npy", out.getvalue() + body)
    return path


@pytest.mark.parametrize("shape", [(10**12,), (2**40, 2**40), (3,), (0,), (-5,)])
def test_headers_that_lie(tmp_path, shape):
    with pytest.raises(BadInput):
        read_npz(with_header(tmp_path, shape, b"12"))


def test_what_is_no_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"hello")
    with pytest.raises(BadInput, match="cannot be read"):
        read_npz(tmp_path / "a.npz")
    with ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"hello")
    with pytest.raises(BadInput, match=r"x\.npy is not an array"):
        read_npz(tmp_path / "a.npz")


def test_a_damaged_npz(tmp_path):
    path = npz(tmp_path, x=np.random.Generator(np.random.PCG64(0)).integers(0, 255, (9, 40, 40), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="CRC"):
        read_npz(path)


def test_fortran_order_survives(tmp_path):
    x = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(6, 4))
    assert np.array_equal(read_npz(npz(tmp_path, x=x))["x"], x)
    assert zipfile.is_zipfile(tmp_path / "a.npz")


def test_damaged_metadata_in_a_zip_is_named(tmp_path, monkeypatch):
    from condgen.data import load
    from condgen.data.check import check

    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"x")
        archive.writestr("metadata.csv", b"file_name,label\n1.png,cat\n")
    path.write_bytes(path.read_bytes().replace(b"1.png,cat", b"1.png,cow"))
    with pytest.raises(BadInput, match=r"metadata\.csv cannot be read"):
        load(str(path))
    assert "metadata.csv cannot be read" in check(str(path)).to_text()
