"""Tables of any dialect: columns named or recognised, findings, duplicates, missing images."""

import gzip

import pytest

from ttl_deploy.data import prepare
from ttl_deploy.data.readers.table import TableReader
from ttl_deploy.errors import DataError, LabelError, UnreadableImageError, UsageError
from ttl_deploy.records.data import Reading


@pytest.fixture
def table(tmp_path, draw):
    """Return a function that writes a table beside a.png to f.png and a folder sub with g.png."""
    for name in "abcdef":
        draw(tmp_path / f"{name}.png", ord(name))
    draw(tmp_path / "sub" / "g.png", 99)

    def write(content, name="labels.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def read(path, **options):
    reader = TableReader()
    assert reader.recognises(str(path))
    return reader.read(str(path), Reading(**options))


def pairs(raw):
    return [(sample.path, sample.label) for sample in raw.samples]


TWO = [("a.png", "x"), ("b.png", "y")]


# dialects and files


@pytest.mark.parametrize(
    "content",
    [
        "path|label\na.png|x\nb.png|y\n",
        "path,label,note\na.png,x,1;2\nb.png,y,3;4\n",
        'path, label\na.png, "x"\nb.png, "y"\n',
        "path,label\ra.png,x\rb.png,y\r",
        "path,label,\na.png,x,\nb.png,y,,,\n",
        "path\tlabel\n\n\na.png\tx\n\t\nb.png\ty\n",
        "path;label\r\na.png;x\r\nb.png;y\r\n".encode("utf-16"),
    ],
)
def test_more_dialects_mean_the_same(table, content):
    assert pairs(read(table(content))) == TWO


def test_a_gzipped_table_is_read(table):
    assert pairs(read(table(gzip.compress(b"path,label\na.png,x\nb.png,y\n"), "mine.csv.gz"))) == TWO


def test_a_comma_in_another_column_does_not_make_it_the_delimiter(table):
    raw = read(table('path;label;"notes, more, and others"\na.png;x;"1,5"\nb.png;y;"2,5"\n'))
    assert pairs(raw) == TWO
    assert raw.samples[0].extra == {"notes, more, and others": "1,5"}


def test_one_table_of_any_name_is_taken_and_two_are_not(table):
    folder = table("path,label\na.png,x\nb.png,y\n", "Mine 2024.csv")
    assert pairs(read(folder)) == TWO
    table("path,label\na.png,y\nb.png,x\n", "other.tsv")
    assert not TableReader().recognises(str(folder))


def test_a_table_that_names_no_images_does_not_hide_class_folders(table):
    folder = table("date,who\n1,2\n", "notes.csv")
    assert not TableReader().recognises(str(folder))


def test_tables_called_after_splits_are_read_together(table):
    table("path,label\na.png,x\nb.png,y\n", "train.csv")
    table("label,path\ny,c.png\n", "valid.csv")
    raw = read(table("path,label\nd.png,x\n", "test.csv"))
    assert {s.path: (s.label, s.split) for s in raw.samples} == {
        "a.png": ("x", "train"),
        "b.png": ("y", "train"),
        "c.png": ("y", "val"),
        "d.png": ("x", "test"),
    }


def test_a_test_table_without_labels_is_left_out_and_told(table):
    table("path,label\na.png,x\nb.png,y\n", "train.csv")
    raw = read(table("path\nd.png\n", "test.csv"))
    assert pairs(raw) == TWO
    assert "test.csv has no labels and is left out: 1 rows" in [w.message for w in raw.warnings]


def test_a_contradiction_between_two_tables_names_both(table):
    table("path,label\na.png,x\nb.png,y\n", "train.csv")
    with pytest.raises(LabelError, match=r"test\.csv row 2 names b\.png again, as .*train\.csv row 3"):
        read(table("path,label\nb.png,x\n", "test.csv"))


# columns


@pytest.mark.parametrize("image", ["path", "Image", "file name", "FILE_PATH", "img", "image_id", "SOPInstanceUID"])
@pytest.mark.parametrize("label", ["Label", "class", "diagnosis", "DX", "target", "grade", "Finding Labels"])
def test_columns_are_recognised_by_many_names(table, image, label):
    assert pairs(read(table(f"{label},{image}\nx,a.png\ny,b.png\n"))) == TWO


@pytest.mark.parametrize("patient", ["patient_id", "PatientID", "Patient ID", "patient", "subject_id", "participant"])
def test_patients_are_recognised(table, patient):
    raw = read(table(f"path,label,{patient}\na.png,x,7\nb.png,y,8\n"))
    assert [s.patient_id for s in raw.samples] == ["7", "8"]


def test_a_documented_name_goes_before_others(table):
    raw = read(table("image,path,class,label,subject,patient_id\nq,a.png,1,x,s,7\nq,b.png,1,y,s,8\n"))
    assert pairs(raw) == TWO
    assert [s.patient_id for s in raw.samples] == ["7", "8"]
    assert raw.samples[0].extra == {"image": "q", "class": "1", "subject": "s"}


@pytest.mark.parametrize(
    ("header", "option", "candidates"),
    [
        ("image,file,label", "--image-col", "'image', 'file'"),
        ("path,class,dx", "--label-col", "'class', 'dx'"),
        ("path,label,patient,subject", "--patient-col", "'patient', 'subject'"),
    ],
)
def test_an_ambiguous_column_names_the_candidates(table, header, option, candidates):
    row = ",".join(["a.png"] * (header.count(",") + 1))
    with pytest.raises(LabelError, match=rf"{candidates}\. Choose one with {option}"):
        read(table(f"{header}\n{row}\n"))


def test_named_columns_go_before_recognised_ones(table):
    folder = table("Path,Label,Who,Part,X Y\nq,q,7,train,a.png\nq,q,8,test,b.png\n")
    raw = read(folder, image_col="x_y", label_col="who", patient_col="Label", split_col="part")
    assert [(s.path, s.label, s.patient_id, s.split) for s in raw.samples] == [
        ("a.png", "7", "q", "train"),
        ("b.png", "8", "q", "test"),
    ]


def test_a_named_column_that_is_missing_is_told_with_what_there_is(table):
    with pytest.raises(LabelError, match=r"no column 'nurse'; it has: path, label\. Choose one with --patient-col"):
        read(table("path,label\na.png,x\n"), patient_col="nurse")


def test_one_column_cannot_be_two_things(table):
    with pytest.raises(LabelError, match="label and image are both column 'path'"):
        read(table("path,label\na.png,x\n"), label_col="path")


def test_a_set_column_is_a_split_only_if_it_holds_splits(table):
    raw = read(table("path,label,set\na.png,x,train\nb.png,y,Validation\n"))
    assert [s.split for s in raw.samples] == ["train", "val"]
    raw = read(table("path,label,set\na.png,x,A\nb.png,y,B\n"))
    assert [(s.split, s.extra) for s in raw.samples] == [(None, {"set": "A"}), (None, {"set": "B"})]


def test_a_patient_is_one_however_the_number_is_written(table):
    table("path,label,patient\na.png,x,12\nb.png,y,13\n", "train.csv")
    raw = read(table("path,label,patient\nc.png,x,12.0\nd.png,y,14.0\n", "test.csv"))
    assert [s.patient_id for s in raw.samples] == ["12", "13", "12", "14"]


def test_of_two_delimiters_that_fit_the_file_s_name_decides(table):
    raw = read(table("path\tlabel, or so\na.png\tx, y\nb.png\tz, y\n", "mine.tsv"), label_col="label, or so")
    assert pairs(raw) == [("a.png", "x, y"), ("b.png", "z, y")]


# labels


def test_several_columns_are_findings(table):
    folder = table("path,edema,mass,other\na.png,1,0.0,q\nb.png,-1,,q\nc.png,TRUE,false,q\nd.png,-1.0,nan,q\n")
    raw = read(folder, label_col="edema, mass")
    assert [tuple(s.label.values()) for s in raw.samples] == [
        ("present", "absent"),
        ("uncertain", "blank"),
        ("present", "absent"),
        ("uncertain", "blank"),
    ]
    assert [list(s.label) for s in raw.samples] == [["edema", "mass"]] * 4
    assert raw.samples[0].extra == {"other": "q"}


def test_a_mark_of_another_kind_is_refused(table):
    with pytest.raises(LabelError, match=r"row 3, column 'mass' says '2'; allowed for a finding are 1, 0, -1"):
        read(table("path,edema,mass\na.png,1,0\nb.png,1,2\n"), label_col="edema,mass")


def test_one_column_with_bars_is_findings(table):
    raw = read(table("path,label\na.png,mass | edema\nb.png,No Finding\nc.png,edema\n"))
    assert [s.label for s in raw.samples] == [
        {"edema": "present", "mass": "present"},
        {"edema": "absent", "mass": "absent"},
        {"edema": "present", "mass": "absent"},
    ]


def test_one_column_of_marks_with_uncertain_ones_is_a_finding(table):
    raw = read(table("path,edema\na.png,1\nb.png,0\nc.png,-1\nd.png,\n"), label_col="edema")
    assert [s.label["edema"] for s in raw.samples] == ["present", "absent", "uncertain", "blank"]


def test_whole_numbers_are_one_class_however_they_are_written(table):
    assert [s.label for s in read(table("path,grade\na.png,10\nb.png,2.0\nc.png, 2\nd.png,0\n")).samples] == [
        "10",
        "2",
        "2",
        "0",
    ]
    assert [s.label for s in read(table("path,grade\na.png,2.0\nb.png,2\nc.png,2a\n")).samples] == ["2.0", "2", "2a"]


def test_grades_are_ordered_as_numbers(tmp_path, draw):
    rows = []
    for number in range(60):
        draw(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{(0, 2, 10)[number % 3]}")
    (tmp_path / "grades.csv").write_text("\n".join(["image,grade", *rows]))
    assert prepare(str(tmp_path)).classes == ("0", "2", "10")


def test_classes_that_differ_in_case_only_are_told(table):
    raw = read(table("path,label\na.png,Cat\nb.png,cat\n"))
    assert [s.label for s in raw.samples] == ["Cat", "cat"]
    assert [w.kind for w in raw.warnings if w.kind == "similar-classes"] == ["similar-classes"]


# duplicates, missing and unnamed images


def test_equal_rows_are_merged_and_told(table):
    raw = read(table("path,label,sex\na.png,x,F\nb.png,y,M\n./a.png,x,F\nsub/../b.png,y,F\n"))
    assert pairs(raw) == TWO
    assert "2 rows repeat another one and count once" in [w.message for w in raw.warnings]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a.png,x,1,train\na.png,x,2,train",
            "row 3 names a.png again, as row 2 does, with the patient '2' instead of '1'",
        ),
        ("a.png,x,1,train\na.png,x,1,test", "with the split 'test' instead of 'train'"),
        (
            "a.png,x,1,train\nb.png,x,1,train\na.png,y,1,train",
            "row 4 names a.png again, as row 2 does, with the label 'y'",
        ),
    ],
)
def test_contradicting_rows_are_refused_with_both_numbers(table, rows, message):
    with pytest.raises(LabelError, match=message.replace(".", r"\.")):
        read(table(f"path,label,patient,split\n{rows}\n"))


def test_findings_that_contradict_are_shown_alone(table):
    with pytest.raises(LabelError, match="with the label 'mass absent' instead of 'mass present'"):
        read(table("path,edema,mass\na.png,1,1\na.png,1,0\n"), label_col="edema,mass")


def test_missing_images_are_left_out_below_the_share_and_refused_above(table):
    folder = table("path,label\na.png,x\nb.png,y\nq.png,x\nsub,y\n")
    with pytest.raises(
        UnreadableImageError, match=r"2 of 4 images are missing.*row 4.*q\.png.*row 5.*sub is not a file"
    ):
        read(folder, max_bad=0.49)
    raw = read(folder, max_bad=0.5)
    assert pairs(raw) == TWO
    (told,) = [w.message for w in raw.warnings if w.kind == "missing-images"]
    assert told.startswith("2 of 4 images are missing and left out")
    assert "row 4, column 'path': q.png" in told


def test_images_without_a_row_are_counted(table):
    raw = read(table("path,label\na.png,x\nb.png,y\nc.png,x\nd.png,y\n"))
    assert [w.message for w in raw.warnings] == ["2 images in the same folders have no row in the table"]


def test_names_without_suffix_or_folder_are_found(table):
    raw = read(table("image_id,label\na,x\nb,y\ng,x\n"))
    assert pairs(raw) == [*TWO, ("sub/g.png", "x")]
    assert "1 images were found by their names in folders below" in [w.message for w in raw.warnings]


def test_a_name_with_a_folder_is_found_there_only(table):
    assert pairs(read(table("path,label\nsub/g,x\nb.png,y\n")))[0] == ("sub/g.png", "x")
    with pytest.raises(UnreadableImageError, match=r"sub/a\.png"):
        read(table("path,label\nsub/a.png,x\nb.png,y\n"))


def test_dicom_files_are_found_by_their_instance_ids(tmp_path):
    uids = [f"1.2.826.0.1.3680043.8.498.{number}" for number in range(4)]
    for number, uid in enumerate(uids):
        place = tmp_path / "study" / str(number)
        place.mkdir(parents=True)
        (place / (f"{uid}.dcm" if number % 2 else uid)).write_bytes(b"x")
    rows = [f"{uid},{'xy'[number % 2]}" for number, uid in enumerate(uids)]
    (tmp_path / "export.csv").write_text("\n".join(["SOP Instance UID,diagnosis", *rows]))
    raw = read(tmp_path, image_col="SOP Instance UID")
    assert [s.path for s in raw.samples] == [
        f"study/{number}/{uid}{'.dcm' if number % 2 else ''}" for number, uid in enumerate(uids)
    ]


def test_an_ambiguous_name_is_refused(table, draw):
    folder = table("image_id,label\na,x\nb,y\n")
    draw(folder / "a.jpg", 5)
    with pytest.raises(LabelError, match=r"row 2, column 'image_id': a could be a\.jpg or a\.png"):
        read(folder)


# another root


def test_images_may_lie_elsewhere_and_another_machines_paths_are_remapped(table, tmp_path):
    folder = table("path,label\n/home/x/data/sub/g.png,x\nC:\\study\\a.png,y\nb.png,x\n")
    place = tmp_path.parent / f"{tmp_path.name}-tables"
    place.mkdir()
    (folder / "labels.csv").rename(place / "labels.csv")
    raw = read(place, image_root=str(folder))
    assert pairs(raw) == [("sub/g.png", "x"), ("a.png", "y"), ("b.png", "x")]
    assert raw.root == folder.resolve()
    assert "2 absolute paths were looked up below --image-root" in [w.message for w in raw.warnings]
    with pytest.raises(LabelError, match=r"g\.png leads out of .*--image-root FOLDER"):
        read(place)


def test_the_longest_end_that_exists_counts(table, draw):
    folder = table("path,label\n/x/sub/a.png,x\n/x/sup/b.png,y\n")
    draw(folder / "sub" / "a.png", 50)
    assert pairs(read(folder, image_root=str(folder))) == [("sub/a.png", "x"), ("b.png", "y")]


def test_a_root_that_is_no_folder_is_a_usage_error(table):
    with pytest.raises(UsageError, match=r"--image-root /nowhere is no folder"):
        read(table("path,label\na.png,x\n"), image_root="/nowhere")


# damaged tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfep", r"not UTF-8 text \(byte 2\)"),
        ("path,label\na.png," + "x" * 1_000_000 + "\n", r"row 2: field larger than field limit"),
        ("path,label\n" + "x/" * 40_000 + "a.png,x\n", r"images are missing.*80,005 characters"),
        ("path,label\na.png,x,y\n", "row 2 has 3 cells, the header 2"),
        ('path,label\nb.png,x\na.png,"x"y\n', "cannot be read as a table: row 3"),
    ],
)
def test_a_damaged_table_is_refused(table, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(table(content))
    assert len(str(caught.value)) < 1000


def test_a_folder_that_cannot_be_listed_is_refused(table, monkeypatch):
    folder = table("path,label\na.png,x\n", "mine.csv")

    def refuse(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"cannot list .*Permission denied"):
        TableReader().recognises(str(folder))
