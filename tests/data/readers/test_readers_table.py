"""What holds for every reader in the table of plug-ins."""

import pytest

from ttl_deploy import plugins
from ttl_deploy.data.readers.table_files import TABLE_SUFFIXES

NAMES = plugins.names("readers")


@pytest.fixture(params=NAMES)
def reader(request):
    return plugins.load("readers", request.param)()


def test_what_does_not_exist_is_recognised_by_none(reader, tmp_path):
    assert not reader.recognises(str(tmp_path / "nothing"))


def test_an_empty_folder_is_left_to_the_class_folders(reader, tmp_path):
    assert reader.recognises(str(tmp_path)) == (type(reader).__name__ == "FolderReader")


@pytest.mark.parametrize("name", ["a.zip", "a.txt", "train", "Data_Entry_2017.pdf"])
def test_a_file_of_another_kind_is_recognised_by_none(reader, tmp_path, name):
    (tmp_path / name).write_text("path,label\na.png,x\n")
    assert not reader.recognises(str(tmp_path / name))


def test_a_damaged_table_is_the_generic_readers(reader, tmp_path):
    generic = type(reader).__name__ == "TableReader"
    for suffix in set(TABLE_SUFFIXES) - {".parquet"}:
        for content in (b"", b"\0", b"\xff\xfe\xff", b'"', b"path", b"\n\n", b"\x1f\x8b"):
            for name in ("labels", "train"):
                (tmp_path / f"{name}{suffix}").write_bytes(content)
                assert reader.recognises(str(tmp_path / f"{name}{suffix}")) == generic


def test_class_folders_are_asked_last():
    assert NAMES[-1] == "folder"


def test_class_folders_with_a_stray_table_stay_class_folders(tmp_path, draw):
    draw(tmp_path / "cat" / "a.png", 1)
    draw(tmp_path / "dog" / "b.png", 2)
    (tmp_path / "visits.csv").write_text("who,when\n1,2\n")
    asked = [name for name in NAMES if plugins.load("readers", name)().recognises(str(tmp_path))]
    assert asked == ["folder"]
