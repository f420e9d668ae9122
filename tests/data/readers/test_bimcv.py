"""BIMCV-COVID19: reports, participants and X-rays in BIDS-like folders."""

import pytest

from ttl_deploy.data.readers.bimcv import BimcvReader
from ttl_deploy.errors import LabelError, UsageError
from ttl_deploy.records.data import Reading

COLUMNS = ["", "PatientID", "ReportID", "Report", "Labels", "Localizations", "LabelsLocalizationsBySentence"]
REPORTS = [
    ["0", "sub-S03045", "ses-E06232", "torax normal", "['normal']", "[]", "[['normal']]"],
    [
        "1",
        "sub-S03047",
        "ses-E07985",
        "x",
        "['COVID 19', 'pneumonia']",
        "['loc basal']",
        "[['pneumonia', 'loc basal']]",
    ],
    ["2", "sub-S03048", "ses-E08042", "x", "['ground glass pattern'\t 'pneumonia']", "[]", "[]"],
    ["3", "sub-S03049", "ses-E08050", "x", "[]", "[]", "[]"],
    ["4", "sub-S03050", "ses-E08060", "x", "['normal']", "[]", "[]"],
]
IMAGES = {
    ("sub-S03045", "ses-E06232"): ["run-1_bp-chest_vp-ap_dx", "run-2_bp-chest_vp-ll_dx"],
    ("sub-S03047", "ses-E07985"): ["run-1_bp-chest_cr"],
    ("sub-S03048", "ses-E08042"): ["acq-2_run-1_bp-chest_vp-pa_dx"],
    ("sub-S03049", "ses-E08050"): ["run-1_bp-chest_cr"],
}


@pytest.fixture(params=["together", "as unpacked"])
def folder(tmp_path, draw, request):
    head = tmp_path if request.param == "together" else tmp_path / "bimcv_covid19_posi_head_iter1"
    subjects = tmp_path if request.param == "together" else tmp_path / "bimcv_covid19_posi_subjects_1"
    for number, ((patient, session), names) in enumerate(IMAGES.items()):
        for name in names:
            draw(subjects / patient / session / "mod-rx" / f"{patient}_{session}_{name}.png", number)
            (subjects / patient / session / "mod-rx" / f"{patient}_{session}_{name}.json").write_text("{}")
        (subjects / patient / session / "mod-rx" / f"{patient}_{session}_run-3_bp-chest_ct.nii.gz").write_text("x")
        (subjects / patient / f"{patient}_sessions.tsv").write_text("session_id\tstudy_date\n")
    labels = head / "derivatives" / "labels"
    labels.mkdir(parents=True)
    quoted = [[f'"{cell}"' if "\t" in cell else cell for cell in row] for row in [COLUMNS, *REPORTS]]
    (labels / "labels_covid19_posi.tsv").write_text("\n".join("\t".join(row) for row in quoted) + "\n")
    (labels / "Tree_Term_CUI_counts_image_covid_posi.csv").write_text("a,b\n1,2\n")
    (head / "participants.tsv").write_text(
        "participant\tmodality_dicom\tbody_parts\tage\tgender\nsub-S03045\t['CR']\t[['chest']]\t[64]\tM\n"
    )
    return tmp_path


def read(folder, **options):
    reader = BimcvReader()
    assert reader.recognises(str(folder))
    return reader.read(str(folder), Reading(**options))


def test_x_rays_get_their_reports_labels(folder):
    raw = read(folder)
    found = [(s.path.rpartition("/")[2], s.patient_id, s.extra["ReportID"]) for s in raw.samples]
    assert found == [
        (f"{patient}_{session}_{name}.png", patient, session)
        for (patient, session), names in list(IMAGES.items())[:3]
        for name in names
    ]
    present = [{name for name, mark in s.label.items() if mark == "present"} for s in raw.samples]
    assert present == [{"normal"}, {"normal"}, {"COVID 19", "pneumonia"}, {"ground glass pattern", "pneumonia"}]
    assert {frozenset(s.label) for s in raw.samples} == {
        frozenset(("normal", "COVID 19", "pneumonia", "ground glass pattern"))
    }
    assert [s.extra["gender"] for s in raw.samples] == ["M", "M", "", ""]


def test_what_is_left_out_is_told(folder):
    told = [w.message for w in read(folder).warnings]
    assert "1 reports have no labels and are left out" in told
    assert "1 reports have no X-ray here" in told


def test_columns_are_not_to_be_chosen(folder):
    with pytest.raises(UsageError, match="--label-col Labels"):
        read(folder, label_col="Labels")


def test_a_set_without_x_rays_is_refused(folder):
    for image in folder.rglob("*.png"):
        image.unlink()
    with pytest.raises(LabelError, match=r"no X-ray of any report.*mod-rx"):
        read(folder)


def test_a_folder_that_is_linked_from_elsewhere_is_not_read(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    session = next(folder.rglob("ses-E07985"))
    session.rename(elsewhere / "ses-E07985")
    session.symlink_to(elsewhere / "ses-E07985")
    assert "sub-S03047" not in {s.patient_id for s in read(folder).samples}
