"""CheXpert's two tables, as the archive `CheXpert-v1.0-small` has them."""

import csv

import pytest

from ttl_deploy.data import prepare
from ttl_deploy.data.readers.chexpert import ChexpertReader
from ttl_deploy.data.readers.table import TableReader
from ttl_deploy.errors import DataError, LabelError
from ttl_deploy.records.data import Reading

HEADER = [
    *("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly"),
    *("Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
]
# In the manner of the real table; what they state was made up.
TRAIN = [
    "patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "patient00002/study1/view1_frontal.jpg,Female,83,Frontal,AP,,,,1.0,,,-1.0,,,,,,1.0,",
    "patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,",
    "patient00003/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,,,1.0,,,,0.0,,,,",
]
VALID = [
    "patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
]
MARKS = {"1.0": "present", "0.0": "absent", "-1.0": "uncertain", "": "blank"}


@pytest.fixture
def archive(tmp_path, draw):
    """Return the folder that the archive was unpacked in."""
    small = tmp_path / "CheXpert-v1.0-small"
    for number, (split, lines) in enumerate((("train", TRAIN), ("valid", VALID))):
        rows = [f"CheXpert-v1.0-small/{split}/{line}" for line in lines]
        for i, row in enumerate(rows):
            draw(tmp_path / row.partition(",")[0], 10 * number + i)
        (small / f"{split}.csv").write_text("\n".join([",".join(HEADER), *rows, ""]))
    return tmp_path


def read(data, **options):
    reader = ChexpertReader()
    assert reader.recognises(str(data))
    return reader.read(str(data), Reading(**options))


@pytest.mark.parametrize("place", [".", "CheXpert-v1.0-small"])
def test_the_archive_and_the_folder_in_it_mean_the_same(archive, place):
    raw = read(archive / place)
    expected = [*TRAIN, *VALID]
    assert [s.path.partition("/")[2] for s in raw.samples] == [line.partition(",")[0] for line in expected]
    assert [s.patient_id for s in raw.samples] == [line.partition("/")[0] for line in expected]
    assert [s.split for s in raw.samples] == ["train"] * 5 + ["val"]
    for sample, line in zip(raw.samples, expected, strict=True):
        cells = next(csv.reader([line]))
        assert list(sample.label.items()) == [(n, MARKS[c]) for n, c in zip(HEADER[5:], cells[5:], strict=True)]
        assert sample.extra == dict(zip(HEADER[1:5], cells[1:5], strict=True))
        assert (raw.root / sample.path).is_file()


def test_a_renamed_folder_and_tables_beside_the_folder_are_understood(archive):
    (archive / "CheXpert-v1.0-small").rename(archive / "mine")
    assert read(archive / "mine").samples[0].path == "train/patient00001/study1/view1_frontal.jpg"
    (archive / "mine").rename(archive / "CheXpert-v1.0-small")
    for name in ("train.csv", "valid.csv"):
        (archive / "CheXpert-v1.0-small" / name).rename(archive / name)
    assert read(archive).samples[0].path == "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"


def test_one_observation_can_be_the_label_and_so_can_another_column(archive):
    pneumonia = read(archive, label_col="Edema")
    assert [s.label["Edema"] for s in pneumonia.samples[:2]] == ["blank", "uncertain"]
    assert set(pneumonia.samples[0].label) == {"Edema"}
    assert [s.label for s in read(archive, label_col="sex").samples[:2]] == ["Female", "Female"]
    assert set(read(archive, label_col="sex").samples[0].extra) == {"Age", "Frontal/Lateral", "AP/PA"}


def test_the_images_may_lie_elsewhere(archive, tmp_path):
    images = tmp_path / "elsewhere"
    (archive / "CheXpert-v1.0-small" / "train").rename(images.with_name("train-moved"))
    images.mkdir()
    images.with_name("train-moved").rename(images / "train")
    raw = read(archive / "CheXpert-v1.0-small" / "train.csv", image_root=str(images))
    assert raw.root == images.resolve()
    assert {s.split for s in raw.samples} == {"train"}


def test_a_path_without_a_patient_is_refused_with_its_row(archive):
    table = archive / "CheXpert-v1.0-small" / "train.csv"
    table.write_text(table.read_text().replace("patient00003", "person00003"))
    with pytest.raises(LabelError, match=r"train\.csv row 6, column 'Path': .* names no patient"):
        read(archive)


def test_a_mark_of_another_kind_is_refused_with_row_and_column(archive):
    table = archive / "CheXpert-v1.0-small" / "valid.csv"
    table.write_text(table.read_text().replace("AP,0.0,1.0", "AP,0.0,0.5"))
    with pytest.raises(LabelError, match=r"valid\.csv row 2, column 'Enlarged Cardiomediastinum' says '0\.5'"):
        read(archive)


def test_missing_images_stop_and_some_are_left_out_where_that_is_allowed(archive):
    (archive / "CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 6 images are missing.*--max-bad.*train\.csv row 6, column 'Path'"):
        read(archive)
    raw = read(archive, max_bad=0.2)
    assert len(raw.samples) == 5
    assert [w.kind for w in raw.warnings] == ["missing-images"]


def test_a_table_of_fewer_columns_is_left_to_the_generic_reader(archive):
    table = archive / "labels.csv"
    table.write_text("Path,Edema\nCheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,1.0\n")
    assert not ChexpertReader().recognises(str(table))
    assert TableReader().recognises(str(table))


def test_prepare_chooses_this_reader_and_the_policies_apply(archive, draw):
    small = archive / "CheXpert-v1.0-small"
    rows = []
    for number in range(60):
        path = f"CheXpert-v1.0-small/train/patient{number + 100:05d}/study1/view1_frontal.jpg"
        draw(archive / path, 100 + number)
        rows.append(f"{path},Male,50,Frontal,PA,,,{number % 2}.0,,,{'-1.0' if number % 3 else '1.0'},,,,,,,,")
    (small / "train.csv").write_text("\n".join([",".join(HEADER), *rows, ""]))
    manifest = prepare(str(archive), reading=Reading(labels=("Cardiomegaly", "Edema"), uncertain="ignore"))
    assert manifest.reader == "chexpert"
    assert manifest.multilabel
    assert manifest.classes == ("Cardiomegaly", "Edema")
    by_patient = {sample.patient_id: sample.label for sample in manifest.samples}
    assert by_patient["patient00101"] == (1, -1)
    assert by_patient["patient00102"] == (0, -1)
    assert by_patient["patient00103"] == (1, 1)
    assert {s.split for s in manifest.samples if s.patient_id == "patient64541"} == {"val"}


def test_a_damaged_header_does_not_make_classes_of_the_folders(archive):
    table = archive / "CheXpert-v1.0-small" / "train.csv"
    table.write_text(table.read_text().replace("Edema", "Edena"))
    with pytest.raises(LabelError, match=r"valid\.csv differ in their columns: Edema, Edena"):
        read(archive)
    (archive / "CheXpert-v1.0-small" / "valid.csv").unlink()
    with pytest.raises(LabelError, match=r"train\.csv has no column 'Edema', as the data set's has"):
        read(archive)
