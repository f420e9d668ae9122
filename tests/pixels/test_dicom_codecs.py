"""Native codecs decode in a process that may crash, hang or fill its memory; only the one file is lost."""

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.pixels import decode_bytes, decoder_process
from ttl_deploy.pixels.decoder_process import decode_apart
from ttl_deploy.pixels.dicom_tables import DicomFaultError
from ttl_deploy.records.data import DecodeSettings

from .dicom_files import SIDE, build, pydicom, read, table, to_bytes

RNG = np.random.default_rng(6)
SMOOTH = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 60 + RNG.integers(0, 90, (SIDE, SIDE))).astype(np.uint16)
EXPECTED = np.floor(SMOOTH / 4095 * 255 + 0.5)
EIGHT = (SMOOTH // 16).astype(np.uint8)
JPEG_LS, NEAR_LOSSLESS, JPEG_2000 = (pydicom.uid.UID(f"1.2.840.10008.1.2.4.{end}") for end in (80, 81, 90))


def compressed(syntax, stored=SMOOTH, **options):
    dataset = build(stored)
    dataset.compress(syntax, **options)
    return to_bytes(dataset)


def as_jpeg(stored=EIGHT, syntax="1.2.840.10008.1.2.4.50"):
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=95)
    dataset = build(stored, bits=8, PhotometricInterpretation="YBR_FULL_422" if stored.ndim == 3 else "MONOCHROME2")
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([file.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    return to_bytes(dataset), file.getvalue()


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000])
@pytest.mark.parametrize("isolated", [True, False])
def test_lossless_codecs_give_what_was_stored(syntax, isolated):
    np.testing.assert_array_equal(read(compressed(syntax), isolated=isolated), EXPECTED)


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000])
def test_signed_values_keep_their_sign(syntax):
    signed = SMOOTH.astype(np.int16) - 2048
    np.testing.assert_array_equal(read(compressed(syntax, signed)), EXPECTED)


def test_near_lossless_stays_near():
    stored = read(compressed(NEAR_LOSSLESS, jls_error=16))
    assert np.abs(stored.astype(int) - EXPECTED).max() <= 2


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"])
def test_a_jpeg_inside_dicom_is_the_jpeg(syntax):
    content, jpeg = as_jpeg(syntax=syntax)
    expected = decode_bytes(jpeg, DecodeSettings(image_size=SIDE), name="a.jpg")[..., 0]
    np.testing.assert_array_equal(read(content), expected)


def test_a_colour_jpeg_inside_dicom_is_nearly_the_jpeg():
    colours = np.dstack([EIGHT, EIGHT[::-1], EIGHT[:, ::-1]])
    content, jpeg = as_jpeg(colours)
    ours, alone = (decode_bytes(file, DecodeSettings(image_size=SIDE), name="a") for file in (content, jpeg))
    assert np.abs(ours.astype(int) - alone).max() <= 2


class Fatal:
    """Makes the process that receives it do something."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def own_pid():
    return decoder_process._OF_THREAD.process._child.pid


@pytest.mark.parametrize(
    ("fatal", "said"),
    [
        (Fatal(os.abort), r"killed by signal 6 \(SIGABRT\)"),
        (Fatal(os._exit, 3), "exited with code 3"),
        (Fatal(time.sleep, 100), r"gave no answer within 0\.5 s"),
    ],
)
def test_a_crash_and_a_hang_cost_one_file(fatal, said):
    read(compressed(JPEG_2000))
    before = own_pid()
    with pytest.raises(DicomFaultError, match=said):
        decode_apart(fatal, timeout_s=0.5)
    np.testing.assert_array_equal(read(compressed(JPEG_2000)), EXPECTED)
    assert own_pid() != before


def test_an_answer_that_an_interrupt_left_behind_is_not_the_next_files(monkeypatch):
    other = compressed(JPEG_2000, 4095 - SMOOTH)
    read(other)

    def interrupt(self, timeout):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("multiprocessing.connection.Connection.poll", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read(other)
    np.testing.assert_array_equal(read(compressed(JPEG_2000)), EXPECTED)


def test_a_flood_of_memory_costs_one_file():
    content = compressed(JPEG_2000)
    size = content.index(b"\xff\x4f\xff\x51") + 8  # SIZ: width and height follow its length and capabilities
    flood = content[:size] + (300_000).to_bytes(4, "big") * 2 + content[size + 8 :]
    with pytest.raises(UnreadableImageError, match=r"a\.dcm: its pixels do not decode"):
        read(flood)


def test_many_files_share_one_process_and_a_killed_one_is_replaced():
    content = compressed(JPEG_LS)
    pids = {(read(content).sum(), own_pid())[1] for _ in range(5)}
    assert len(pids) == 1
    decoder_process._OF_THREAD.process._child.kill()
    decoder_process._OF_THREAD.process._child.wait()
    np.testing.assert_array_equal(read(content), EXPECTED)
    assert own_pid() not in pids


def test_every_thread_has_its_own_process_which_ends_with_it():
    content, both, children = compressed(JPEG_LS), threading.Barrier(2), []

    def work(_):
        both.wait()
        decoded = read(content)
        children.append(decoder_process._OF_THREAD.process._child)
        return decoded

    with ThreadPoolExecutor(2) as pool:
        decoded = list(pool.map(work, range(2)))
    assert all((one == EXPECTED).all() for one in decoded)
    assert len({child.pid for child in children}) == 2
    assert all(child.wait(10) is not None for child in children)


def mutate(content, rng):
    """Cut, overwrite or double bytes, as in the campaign that found the codecs' crashes."""
    if rng.random() < 0.25:
        return content[: rng.integers(1, len(content))]
    changed = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(0, len(changed), rng.choice([1, 2, 8, 64]))
    changed[places] = rng.choice([0, 255, 127, 128, *rng.integers(0, 256, 4)], len(places))
    if rng.random() < 0.1:
        start = rng.integers(0, len(changed))
        changed = np.insert(changed, start, changed[start : start + 200])
    return changed.tobytes()


def sources():
    """Return a small file of every coding and with every kind of table."""
    plain = build(SMOOTH, WindowCenter=2000, WindowWidth=3000, PixelPaddingValue=1, RescaleSlope=1)
    rle, tables = build(SMOOTH), build(SMOOTH)
    rle.compress(pydicom.uid.RLELossless)
    tables.ModalityLUTSequence = [table(np.arange(64) * 1000, first=-32)]
    tables.VOILUTSequence = [table(np.arange(32) * 2000, data_vr="OW")]
    deflated = build(SMOOTH, syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    implicit = build(SMOOTH, syntax=pydicom.uid.ImplicitVRLittleEndian, WindowCenter=[2000, 1], WindowWidth=[99, 1])
    uncompressed = map(to_bytes, (plain, rle, tables, deflated, implicit, palette_picture()))
    return [*uncompressed, compressed(JPEG_LS), compressed(JPEG_2000), as_jpeg()[0]]


def palette_picture():
    dataset = build(EIGHT, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", bytes(range(256)))
    return dataset


def try_mutants(count, *, seed):
    """Decode mutants and return how many were refused; anything else that is raised fails the test."""
    rng, refused, shown, originals = np.random.default_rng(seed), 0, 0, sources()
    for number in range(count):
        content = mutate(originals[number % len(originals)], rng)
        try:
            assert decode_bytes(content, DecodeSettings(image_size=16), name="a.dcm").shape == (16, 16, 3)
        except UnreadableImageError as error:
            refused += "a.dcm" in str(error)
        else:
            shown += 1
    assert refused + shown == count
    return refused


def test_two_thousand_mutants_are_pictures_or_refused():
    assert 200 < try_mutants(2000, seed=0) < 2000


@pytest.mark.slow
def test_a_hundred_thousand_mutants_are_pictures_or_refused():
    assert 10_000 < try_mutants(100_000, seed=1) < 100_000
