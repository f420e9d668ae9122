"""Parquet: embedded images as Hugging Face writes them, and tables of paths."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ttl_deploy.data import prepare
from ttl_deploy.data.readers.parquet_images import ParquetImagesReader
from ttl_deploy.data.readers.table import TableReader
from ttl_deploy.errors import DataError, LabelError, MissingExtraError, UnreadableImageError
from ttl_deploy.records.data import Reading

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode(seed, kind="PNG"):
    content = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(values).save(content, kind)
    return content.getvalue()


def write(path, contents, *, labels, kind=None, features=None, **columns):
    """Write a file of Hugging Face's layout."""
    kind = kind or pa.int64()
    images = pa.array([None if c is None else {"bytes": c, "path": "../../x.png"} for c in contents], IMAGE)
    table = pa.table({"image": images, "label": pa.array(labels, kind), **columns})
    if features:
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": features}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def names(*words):
    return {"names": list(words), "_type": "ClassLabel"}


def read(data, **options):
    reader = ParquetImagesReader()
    assert reader.recognises(str(data))
    return reader.read(str(data), Reading(**options))


@pytest.mark.parametrize("folder", [".", "data"])
def test_bytes_labels_and_splits_come_out_as_they_went_in(tmp_path, folder):
    classes = names("normal", "a|b", "pneumonia")
    contents = {
        "train": [encode(i, "JPEG") for i in range(5)],
        "validation": [encode(9)],
        "test": [encode(10), encode(11)],
    }
    for split, images in contents.items():
        place = tmp_path / folder / f"{split}-00000-of-00001.parquet"
        write(place, images, labels=[i % 3 for i in range(len(images))], features=classes)
    raw = read(tmp_path)
    for word, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        samples = [s for s in raw.samples if s.split == split]
        assert [(raw.root / s.path).read_bytes() for s in samples] == contents[word]
        assert [s.label for s in samples] == [classes["names"][i % 3] for i in range(len(samples))]
    assert raw.samples[0].path.endswith(".png" if raw.samples[0].split != "train" else ".jpg")
    assert {s.patient_id for s in raw.samples} == {None}


def test_several_files_of_a_split_are_one_and_other_columns_are_kept(tmp_path):
    for number in range(2):
        write(
            tmp_path / f"train-0000{number}-of-00002-0123abcd.parquet",
            [encode(2 * number), encode(2 * number + 1)],
            labels=["ill", "well"],
            kind=pa.string(),
            patient_id=pa.array([f"p{number}", "q"]),
            age=pa.array([3, None]),
        )
    samples = read(tmp_path).samples
    assert [(s.label, s.patient_id, s.extra) for s in samples] == [
        ("ill", "p0", {"age": "3"}),
        ("well", "q", {"age": ""}),
        ("ill", "p1", {"age": "3"}),
        ("well", "q", {"age": ""}),
    ]


def test_lists_of_labels_are_findings(tmp_path):
    feature = {"feature": names("edema", "mass", "hernia"), "_type": "Sequence"}
    labels = [[0, 2], [], [1]]
    write(tmp_path / "a.parquet", map(encode, range(3)), labels=labels, kind=pa.list_(pa.int64()), features=feature)
    samples = read(tmp_path / "a.parquet").samples
    words = feature["feature"]["names"]
    for sample, numbers in zip(samples, labels, strict=True):
        assert {name for name, mark in sample.label.items() if mark == "present"} == {words[n] for n in numbers}
        assert set(sample.label) == set(words)


def test_images_without_a_label_are_left_out_and_told(tmp_path):
    write(tmp_path / "a.parquet", map(encode, range(3)), labels=[0, -1, 1], features=names("no", "yes"))
    raw = read(tmp_path / "a.parquet")
    assert [s.label for s in raw.samples] == ["no", "yes"]
    assert [w.message for w in raw.warnings if w.kind == "images-without-labels"] == [
        "1 images have no label and are left out"
    ]


def test_a_number_without_a_name_is_refused(tmp_path):
    write(tmp_path / "a.parquet", map(encode, range(2)), labels=[0, 7], features=names("no", "yes"))
    with pytest.raises(LabelError, match="column 'label' has the label 7; there are 2 names"):
        read(tmp_path / "a.parquet")


def test_two_classes_of_one_name_are_refused(tmp_path):
    write(tmp_path / "a.parquet", map(encode, range(2)), labels=[0, 1], features=names("yes", "yes"))
    with pytest.raises(LabelError, match="two classes have one name: yes, yes"):
        read(tmp_path / "a.parquet")


def test_a_missing_image_is_named_with_its_row(tmp_path):
    write(tmp_path / "a.parquet", [encode(0), None], labels=["x", "y"], kind=pa.string())
    with pytest.raises(UnreadableImageError, match=r"a\.parquet row 2"):
        read(tmp_path / "a.parquet")


def test_a_search_reads_them_by_the_readers_table(tmp_path):
    write(tmp_path / "train-00000-of-00001.parquet", map(encode, range(40)), labels=[i % 2 for i in range(40)])
    manifest = prepare(str(tmp_path))
    assert manifest.reader == "parquet-images"
    assert manifest.classes == ("0", "1")


def test_a_damaged_file_is_refused(tmp_path):
    write(tmp_path / "a.parquet", map(encode, range(3)), labels=[0, 1, 1])
    content = (tmp_path / "a.parquet").read_bytes()
    for kept in (0, 4, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "a.parquet").write_bytes(content[:kept])
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            read(tmp_path / "a.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", [encode(0)], labels=[0])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttl-deploy\[parquet\]'"):
        ParquetImagesReader().recognises(str(tmp_path / "a.parquet"))


def test_a_table_of_paths_may_be_parquet(tmp_path, draw):
    for name in ("a.png", "b.png", "c.png"):
        draw(tmp_path / name, ord(name[0]))
    table = pa.table(
        {
            "file name": ["a.png", "b.png", "c.png"],
            "Grade": pa.array([0, 2, 10]),
            "Patient": [1, 2, 3],
            "w": [0.5, None, 1.0],
        }
    )
    pq.write_table(table, tmp_path / "mine.parquet")
    assert not ParquetImagesReader().recognises(str(tmp_path))
    raw = TableReader().read(str(tmp_path), Reading())
    assert [(s.path, s.label, s.patient_id) for s in raw.samples] == [
        ("a.png", "0", "1"),
        ("b.png", "2", "2"),
        ("c.png", "10", "3"),
    ]
    assert [s.extra for s in raw.samples] == [{"w": "0.5"}, {"w": ""}, {"w": "1.0"}]


def test_a_row_of_parquet_is_counted_from_one(tmp_path, draw):
    draw(tmp_path / "a.png", 1)
    pq.write_table(pa.table({"path": ["a.png", "../b.png"], "label": ["x", "y"]}), tmp_path / "labels.parquet")
    with pytest.raises(LabelError, match=r"labels\.parquet row 2, column 'path': \.\./b\.png leads out of"):
        TableReader().read(str(tmp_path), Reading())


def test_a_small_file_of_very_many_rows_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("ttl_deploy.data.readers.parquet_files._MOST_CELLS", 5)
    pq.write_table(pa.table({"path": ["a.png"] * 3, "label": ["x"] * 3}), tmp_path / "labels.parquet")
    with pytest.raises(LabelError, match="has 6 cells, at most 5 are read"):
        TableReader().read(str(tmp_path), Reading())
