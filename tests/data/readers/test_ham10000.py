"""HAM10000 as the Harvard Dataverse and Kaggle hand it out."""

import pytest

from ttl_deploy.data import prepare
from ttl_deploy.data.readers.ham10000 import Ham10000Reader
from ttl_deploy.errors import LabelError
from ttl_deploy.records.data import Reading

HEADER = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
ROWS = [
    ["HAM_0000118", "ISIC_0027419", "bkl", "histo", "80.0", "male", "scalp"],
    ["HAM_0000118", "ISIC_0025030", "bkl", "histo", "80.0", "male", "scalp"],
    ["HAM_0002730", "ISIC_0026769", "nv", "follow_up", "", "female", "back"],
    ["HAM_0001466", "ISIC_0031633", "mel", "histo", "75.0", "unknown", "ear"],
]


def make(folder, draw, name="HAM10000_metadata.csv", rows=ROWS):
    for number, row in enumerate(rows):
        made = draw(folder / f"HAM10000_images_part_{number % 2 + 1}" / f"{row[1]}.png", number)
        made.rename(made.with_suffix(".jpg"))
    mark = "\t" if name.endswith(".tab") else ","
    (folder / name).write_text("\n".join(mark.join(row) for row in [HEADER, *rows]) + "\n")
    (folder / "hmnist_28_28_L.csv").write_text("pixel0000,label\n1,2\n")
    return folder


@pytest.mark.parametrize("name", ["HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab"])
def test_images_are_found_by_their_ids_and_lesions_stay_together(tmp_path, draw, name):
    reader = Ham10000Reader()
    folder = make(tmp_path, draw, name)
    assert reader.recognises(str(folder))
    raw = reader.read(str(folder), Reading())
    assert raw.name == "HAM10000"
    for number, (sample, row) in enumerate(zip(raw.samples, ROWS, strict=True)):
        assert sample.path == f"HAM10000_images_part_{number % 2 + 1}/{row[1]}.jpg"
        assert (sample.patient_id, sample.label, sample.split) == (row[0], row[2], None)
        assert sample.extra == dict(zip(HEADER[3:], row[3:], strict=True))


def test_an_id_that_is_there_twice_is_refused(tmp_path, draw):
    folder = make(tmp_path, draw)
    draw(folder / "copies" / "ISIC_0025030.png", 1)
    with pytest.raises(LabelError, match=r"row 3, column 'image_id': ISIC_0025030 could be .*copies/ISIC_0025030\.png"):
        Ham10000Reader().read(str(folder), Reading())


def test_another_column_can_be_the_label(tmp_path, draw):
    raw = Ham10000Reader().read(str(make(tmp_path, draw)), Reading(label_col="dx_type"))
    assert [s.label for s in raw.samples] == ["histo", "histo", "follow_up", "histo"]


def test_lesions_are_divided_whole(tmp_path, draw):
    rows = [[f"HAM_{i // 2:07d}", f"ISIC_{i:07d}", ["nv", "mel"][i // 2 % 2], *ROWS[0][3:]] for i in range(80)]
    manifest = prepare(str(make(tmp_path, draw, rows=rows)))
    assert manifest.reader == "ham10000"
    split_of = {}
    for sample in manifest.samples:
        assert split_of.setdefault(sample.patient_id, sample.split) == sample.split
    assert len(split_of) == 40


def test_a_damaged_header_does_not_make_classes_of_the_folders(tmp_path, draw):
    table = make(tmp_path, draw) / "HAM10000_metadata.csv"
    table.write_text(table.read_text().replace("lesion_id", "lesion"))
    with pytest.raises(LabelError, match="no column 'lesion_id', as the data set's has"):
        prepare(str(tmp_path))
