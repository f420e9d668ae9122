"""ChestX-ray14's table with its odd header, its folders of images and its official lists."""

import pytest

from ttl_deploy.data.readers.nih import NihReader
from ttl_deploy.errors import LabelError, UnreadableImageError
from ttl_deploy.records.data import Reading

# The header of 2017 has commas within two names, and one at its end.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
ROWS = [
    "00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143,",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,",
    "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171,",
    "00000003_000.png,Hernia,0,3,81,F,PA,2582,2991,0.143,0.143,",
    "00000005_000.png,Infiltration|Pleural_Thickening|Hernia,0,5,70,F,AP,2048,2500,0.171,0.171,",
]
FINDINGS = ["Cardiomegaly", "Emphysema", "Hernia", "Infiltration", "Pleural_Thickening"]


@pytest.fixture(params=["one folder", "twelve folders"])
def folder(tmp_path, draw, request):
    for number, row in enumerate(ROWS):
        place = "images" if request.param == "one folder" else f"images_{number % 12 + 1:03d}/images"
        draw(tmp_path / place / row.partition(",")[0], number)
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *ROWS, ""]))
    (tmp_path / "README_CHESTXRAY.pdf").write_text("x")
    (tmp_path / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    return tmp_path


def read(folder, **options):
    reader = NihReader()
    assert reader.recognises(str(folder))
    return reader.read(str(folder), Reading(**options))


def test_findings_patients_and_the_rest_are_read(folder):
    raw = read(folder)
    assert [s.path.rpartition("/")[2] for s in raw.samples] == [row.partition(",")[0] for row in ROWS]
    assert all((raw.root / s.path).is_file() for s in raw.samples)
    for sample, row in zip(raw.samples, ROWS, strict=True):
        stated = row.split(",")[1].split("|")
        assert sample.label == {name: "present" if name in stated else "absent" for name in FINDINGS}
    assert [s.patient_id for s in raw.samples] == ["1", "1", "2", "3", "5"]
    assert raw.samples[4].extra["View Position"] == "AP"
    assert raw.samples[4].extra["OriginalImage[Width"] == "2048"
    assert {s.split for s in raw.samples} == {None}


def test_the_official_lists_give_train_and_test(folder):
    (folder / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png\n")
    (folder / "test_list.txt").write_text("00000003_000.png\n00000005_000.png")
    assert [s.split for s in read(folder).samples] == ["train", "train", "train", "test", "test"]


def test_an_image_in_no_list_is_left_out_and_told(folder):
    (folder / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (folder / "test_list.txt").write_text("00000003_000.png\n00000005_000.png\n")
    raw = read(folder)
    assert [s.patient_id for s in raw.samples] == ["1", "1", "3", "5"]
    assert "1 images are in none of the official lists" in " ".join(w.message for w in raw.warnings)


def test_an_image_in_both_lists_is_refused(folder):
    (folder / "train_val_list.txt").write_text("00000001_000.png\n")
    (folder / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(LabelError, match=r"00000001_000\.png is in train_val_list\.txt and in test_list\.txt"):
        read(folder)


def test_one_list_alone_is_not_used_and_told(folder):
    (folder / "test_list.txt").write_text("00000003_000.png\n")
    raw = read(folder)
    assert {s.split for s in raw.samples} == {None}
    assert "only test_list.txt is here" in " ".join(w.message for w in raw.warnings)


def test_no_finding_beside_a_finding_is_refused(folder):
    table = folder / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Cardiomegaly|Emphysema", "No Finding|Emphysema"))
    with pytest.raises(LabelError, match=r"row 3, column 'Finding Labels' names findings and none"):
        read(folder)


def test_the_same_name_in_two_folders_is_refused(folder, draw):
    draw(folder / "images_099" / "00000003_000.png", 3)
    with pytest.raises(LabelError, match=r"row 5, column 'Image Index': 00000003_000\.png could be .* or "):
        read(folder)


def test_a_part_of_the_images_stops_and_says_how_to_go_on(folder):
    next(folder.rglob("00000003_000.png")).unlink()
    with pytest.raises(UnreadableImageError, match=r"1 of 5 images are missing.*--max-bad.*row 5.*00000003_000\.png"):
        read(folder)


def test_a_row_without_a_patient_is_refused(folder):
    table = folder / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(",0,5,70", ",0,,70"))
    with pytest.raises(LabelError, match="'patient_id' is empty"):
        read(folder)


def test_the_version_of_2020_is_read_too(folder):
    text = (folder / "Data_Entry_2017.csv").read_text()
    (folder / "Data_Entry_2017.csv").unlink()
    lines = [line.rstrip(",") for line in text.splitlines()]
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    assert len(read(folder).samples) == 5


def test_a_damaged_header_does_not_make_classes_of_the_folders(folder):
    table = folder / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Finding Labels", "Finding"))
    with pytest.raises(LabelError, match="no column 'Finding Labels', as the data set's has"):
        read(folder)
