"""MIMIC-CXR-JPG: labels of studies and splits of images, joined, plain or gzipped."""

import gzip

import pytest

from ttl_deploy.data.readers.mimic import MimicReader
from ttl_deploy.errors import LabelError, UnreadableImageError
from ttl_deploy.records.data import Reading

# In the real tables the observations stand in alphabetical order.
OBSERVATIONS = [
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax"),
    "Support Devices",
]
STUDIES = {
    ("10000032", "50414267"): {"No Finding": "1.0"},
    ("10000764", "57375967"): {"Edema": "-1.0", "Fracture": "0.0"},
}
IMAGES = [
    ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "50414267", "10000032", "train", "PA"),
    ("174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962", "50414267", "10000032", "train", "LATERAL"),
    ("096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4", "57375967", "10000764", "validate", "AP"),
    ("b79e55c3-735ce5ac-64412506-cdc9ea79-f1af521f", "58444444", "11000183", "test", "AP"),
]


def write(path, lines, *, zipped):
    text = "\n".join(lines) + "\n"
    if zipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def make(folder, draw, *, zipped=False, metadata=True, suffix=".jpg"):
    studies = [",".join(["subject_id", "study_id", *OBSERVATIONS])]
    for (subject, study), marks in STUDIES.items():
        studies.append(",".join([subject, study, *(marks.get(name, "") for name in OBSERVATIONS)]))
    splits, views = ["dicom_id,study_id,subject_id,split"], ["dicom_id,subject_id,study_id,ViewPosition,Rows"]
    for number, (dicom, study, subject, split, view) in enumerate(IMAGES):
        splits.append(f"{dicom},{study},{subject},{split}")
        views.append(f"{dicom},{subject},{study},{view},3056")
        draw(folder / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.png", number)
        made = folder / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.png"
        made.rename(made.with_suffix(suffix))
    write(folder / "mimic-cxr-2.0.0-chexpert.csv", studies, zipped=zipped)
    write(folder / "mimic-cxr-2.0.0-split.csv", splits, zipped=zipped)
    if metadata:
        write(folder / "mimic-cxr-2.0.0-metadata.csv", views, zipped=zipped)
    return folder


def read(folder, **options):
    reader = MimicReader()
    assert reader.recognises(str(folder))
    return reader.read(str(folder), Reading(**options))


@pytest.mark.parametrize("suffix", [".jpg", ".dcm"])
@pytest.mark.parametrize("zipped", [False, True])
def test_images_get_their_studies_labels_and_their_own_split(tmp_path, draw, zipped, suffix):
    raw = read(make(tmp_path, draw, zipped=zipped, suffix=suffix))
    assert len(raw.samples) == 3
    for sample, (dicom, study, subject, split, view) in zip(raw.samples, IMAGES, strict=False):
        assert sample.path == f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}{suffix}"
        assert (sample.patient_id, sample.split) == (subject, "val" if split == "validate" else split)
        assert sample.extra == {"study_id": study, "ViewPosition": view}
    assert raw.samples[0].label["No Finding"] == "present"
    assert raw.samples[2].label["Edema"] == "uncertain"
    assert raw.samples[2].label["Fracture"] == "absent"
    assert raw.samples[2].label["Pneumonia"] == "blank"
    assert len(raw.samples[2].label) == 14
    assert "1 images belong to studies without labels" in " ".join(w.message for w in raw.warnings)


def test_without_metadata_no_view_is_kept(tmp_path, draw):
    assert read(make(tmp_path, draw, metadata=False)).samples[0].extra == {"study_id": "50414267"}


def test_one_observation_can_be_chosen(tmp_path, draw):
    assert [s.label for s in read(make(tmp_path, draw), label_col="Edema").samples] == [
        {"Edema": "blank"},
        {"Edema": "blank"},
        {"Edema": "uncertain"},
    ]


def test_an_odd_mark_is_refused_with_row_and_column(tmp_path, draw):
    table = make(tmp_path, draw) / "mimic-cxr-2.0.0-chexpert.csv"
    table.write_text(table.read_text().replace("-1.0", "maybe"))
    with pytest.raises(LabelError, match="column 'Edema' says 'maybe'"):
        read(tmp_path)


def test_a_study_that_is_labelled_twice_otherwise_is_refused(tmp_path, draw):
    table = make(tmp_path, draw) / "mimic-cxr-2.0.0-chexpert.csv"
    table.write_text(table.read_text() + ",".join(["10000032", "50414267", *[""] * 14]) + "\n")
    with pytest.raises(LabelError, match=r"row 4 labels study 50414267 otherwise than row 2"):
        read(tmp_path)


def test_missing_images_are_named(tmp_path, draw):
    next(make(tmp_path, draw).rglob(f"{IMAGES[1][0]}.jpg")).unlink()
    with pytest.raises(UnreadableImageError, match=r"1 of 3 images are missing.*split\.csv row 3"):
        read(tmp_path)


def test_a_damaged_archive_is_refused(tmp_path, draw):
    table = make(tmp_path, draw, zipped=True) / "mimic-cxr-2.0.0-split.csv.gz"
    table.write_bytes(table.read_bytes()[:-10])
    with pytest.raises(LabelError, match="damaged gzip"):
        read(tmp_path)
