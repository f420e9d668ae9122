"""Folders and tables are read as they stand, or refused with file, row and column."""

import os
from pathlib import Path

import pytest

from ttl_deploy.data import prepare
from ttl_deploy.data.readers.folder import FolderReader
from ttl_deploy.data.readers.table import TableReader
from ttl_deploy.errors import DataError, LabelError, UnreadableImageError, UsageError
from ttl_deploy.records.data import Reading


def read_folder(path):
    return FolderReader().read(str(path), Reading())


def read_table(path, label_col=""):
    return TableReader().read(str(path), Reading(label_col=label_col))


# folders


def test_class_folders_give_labels_and_no_splits(tmp_path, draw):
    draw(tmp_path / "cat" / "a.png", 1)
    draw(tmp_path / "dog" / "deep" / "b.PNG", 2)
    raw = read_folder(tmp_path)
    assert [(s.path, s.label, s.split) for s in raw.samples] == [
        ("cat/a.png", "cat", None),
        ("dog/deep/b.PNG", "dog", None),
    ]


@pytest.mark.parametrize(
    ("words"), [("train", "val", "test"), ("Training", "VALID", "testing"), ("TRAIN", "Validation", "Test")]
)
def test_split_folders_are_understood_in_any_spelling(tmp_path, draw, words):
    for number, word in enumerate(words):
        draw(tmp_path / word / "cat" / "a.png", number)
    assert {s.split for s in read_folder(tmp_path).samples} == {"train", "val", "test"}
    assert {s.label for s in read_folder(tmp_path).samples} == {"cat"}


def test_split_folders_beside_class_folders_are_refused(tmp_path, draw):
    draw(tmp_path / "train" / "cat" / "a.png", 1)
    draw(tmp_path / "dog" / "b.png", 2)
    with pytest.raises(LabelError, match=r"both split folders \(train\) and others \(dog\)"):
        read_folder(tmp_path)


@pytest.mark.parametrize("place", ["a.png", "train/a.png"])
def test_an_image_outside_of_class_folders_is_named(tmp_path, draw, place):
    draw(tmp_path / "train" / "cat" / "b.png", 1)
    draw(tmp_path / place, 2)
    with pytest.raises(LabelError, match=r"a\.png lies in no class folder"):
        read_folder(tmp_path)


def test_other_files_are_left_out_and_counted_but_images_never(tmp_path, draw):
    draw(tmp_path / "cat" / "a.png", 1)
    for name in ("notes.txt", "more.txt", "Thumbs.db", ".hidden.png", "broken.jpg"):
        (tmp_path / "cat" / name).write_text("text")
    raw = read_folder(tmp_path)
    assert [s.path for s in raw.samples] == ["cat/a.png", "cat/broken.jpg"]
    assert [w.message for w in raw.warnings] == ["left out: 2 .txt files"]


def test_symbolic_links_are_not_followed_and_counted(tmp_path, draw):
    outside = draw(tmp_path / "elsewhere" / "x.png", 1)
    draw(tmp_path / "set" / "cat" / "a.png", 2)
    (tmp_path / "set" / "cat" / "link.png").symlink_to(outside)
    (tmp_path / "set" / "dog").symlink_to(outside.parent)
    raw = read_folder(tmp_path / "set")
    assert [s.path for s in raw.samples] == ["cat/a.png"]
    assert raw.warnings[0].message == "left out: 2 symbolic links"


def test_a_folder_without_images_says_what_was_expected(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.nii").write_text("x")
    with pytest.raises(DataError, match=r"no images \(left out: 1 \.nii files\).*labels\.csv"):
        read_folder(tmp_path)


def test_a_label_column_of_a_folder_without_a_table_is_a_usage_error(tmp_path, draw):
    draw(tmp_path / "cat" / "a.png", 1)
    with pytest.raises(UsageError, match="--label-col subtype"):
        prepare(str(tmp_path), reading=Reading(label_col="subtype"))


def test_a_path_that_does_not_exist_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        prepare(str(tmp_path / "nothing"))


def test_a_file_of_another_kind_is_a_usage_error(tmp_path):
    (tmp_path / "data.zip").write_text("x")
    with pytest.raises(UsageError, match="unknown kind"):
        prepare(str(tmp_path / "data.zip"))


# tables


@pytest.fixture
def table(tmp_path, draw):
    """Return a function that writes raw bytes as labels.csv beside a.png and b.png."""
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "sub" / "b.png", 2)

    def write(content, name="labels.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def test_all_columns_are_read_and_the_rest_is_kept(table):
    raw = read_table(table("path,label,patient_id,split,sex,Age\na.png,cat,p1,train,F,3\nsub/b.png,dog,p2,test,,40\n"))
    first, second = raw.samples
    assert (first.path, first.label, first.patient_id, first.split) == ("a.png", "cat", "p1", "train")
    assert (second.path, second.split, second.extra) == ("sub/b.png", "test", {"sex": "", "Age": "40"})


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.png,cat\nsub/b.png,dog\n",
        "path;label\na.png;cat\nsub/b.png;dog\n",
        "path\tlabel\na.png\tcat\nsub/b.png\tdog\n",
        "\ufeffpath,label\r\na.png,cat\r\nsub/b.png,dog\r\n",
        'label,"path"\r\n cat , a.png\r\n\r\ndog,"sub/b.png"',
        " Image , LABEL\na.png,cat\nsub\\b.png,dog\n",
        "FileName,Label\na.png,cat\n./sub/../sub/b.png,dog\n",
    ],
)
def test_dialects_mean_the_same(table, content):
    assert [(s.path, s.label) for s in read_table(table(content)).samples] == [("a.png", "cat"), ("sub/b.png", "dog")]


def test_the_table_itself_may_be_named(table):
    folder = table("path\tlabel\na.png\tcat\n", name="mine.tsv")
    assert read_table(folder / "mine.tsv").samples[0].label == "cat"
    assert TableReader().recognises(str(folder))


def test_another_column_can_be_the_label_and_the_first_is_kept(table):
    raw = read_table(table("path,label,subtype\na.png,ill,virus\nsub/b.png,well,none\n"), label_col="Subtype")
    assert [(s.label, s.extra) for s in raw.samples] == [("virus", {"label": "ill"}), ("none", {"label": "well"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no header"),
        ("path,label\n", "no rows"),
        ("foo,label\na.png,cat\n", r"no column for the images .* it has: foo, label"),
        ("path,mood\na.png,cat\n", r"no column for the label; it has: path, mood. Choose one with --label-col"),
        ("path,label,Label\na.png,cat,x\n", "two columns named 'label'"),
        ("path,label\na.png,cat\nsub/b.png,\n", r"row 3, column 'label' is empty"),
        ("path,label\n,cat\n", r"row 2, column 'path' is empty"),
        ("path,label\n\na.png,cat\na.png,dog\n", r"row 4 names a\.png again, as row 3"),
        ("path,label\na.png,cat\nsub/../a.png,dog\n", r"row 3 names a\.png again"),
        ("path,label\na.png\n", "row 2 has 1 cells, the header 2"),
        ("path,label,split\na.png,cat,dev\n", r"row 2, column 'split' says 'dev'"),
        ("path,label,split\na.png,cat,train\nsub/b.png,dog,\n", r"column 'split' is empty for sub/b\.png"),
        ("path,label,patient\na.png,cat,\nsub/b.png,dog,7\n", r"column 'patient_id' is empty for a\.png"),
        ("path,label\n../set.png,cat\n", r"row 2, column 'path': \.\./set\.png leads out of"),
        ("path,label\n/etc/passwd,cat\n", r"/etc/passwd leads out of"),
        ("path,label\nsub/..,cat\n", "leads out of"),
        ('path,label\n"a.png,cat\n', "cannot be read as a table"),
        (b"path,label\na.png,k\xe4se\n", r"not UTF-8 text \(byte 18\)"),
        (b"path,label\na.png,c\0t\n", "NUL"),
    ],
)
def test_a_bad_table_is_refused_with_its_row_and_column(table, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_table(table(content))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("path", "reason"), [("gone.png", "No such file"), ("sub", "not a file")])
def test_a_row_whose_file_is_missing_is_named(table, path, reason):
    with pytest.raises(UnreadableImageError, match=rf"labels\.csv row 3, column 'path': {path} .*{reason}"):
        read_table(table(f"path,label\na.png,cat\n{path},dog\n"))


def test_a_link_that_leads_out_of_the_folder_is_refused_and_one_within_is_followed(tmp_path, draw):
    root = tmp_path / "set"
    draw(root / "a.png", 1)
    outside = draw(tmp_path / "secret.png", 2)
    (root / "labels.csv").write_text("path,label\nlink.png,cat\n")
    (root / "link.png").symlink_to(outside)
    with pytest.raises(LabelError, match="leads out of"):
        read_table(root)
    (root / "link.png").unlink()
    (root / "link.png").symlink_to("a.png")
    assert read_table(root).samples[0].path == "a.png"


def test_a_named_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "labels.csv").write_text("path,label\npipe.png,cat\n")
    with pytest.raises(UnreadableImageError, match="is not a file"):
        read_table(tmp_path)


def test_a_table_goes_before_class_folders(table):
    folder = table("path,label\na.png,cat\nsub/b.png,dog\n")
    with pytest.raises(DataError, match="class 'cat' has 1 patients"):
        prepare(str(folder))
    assert Path(folder, "sub").is_dir()
