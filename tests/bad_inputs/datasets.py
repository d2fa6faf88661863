"""Bad data sets: archives, arrays, folders, labels."""

import io
import json
import os
import struct
import zipfile
from functools import partial

import numpy as np
from PIL import Image

from bad_inputs.case import Case, train

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def png(pixels=PIXELS[0], kind="PNG", **options) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def packed(members, compression=zipfile.ZIP_STORED) -> bytes:
    """A zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zeros(name: str, size: int, head: bytes = b"") -> bytes:
    """A small zip with a member that unpacks to `head` and `size` zeros."""
    buffer = io.BytesIO()
    archive = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(head)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file of any header."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


def promise(shape: str, descr: str = "'|u1'") -> str:
    """The header of an array."""
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def saved(array) -> bytes:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def patched(content: bytes, at: int, new: bytes) -> bytes:
    """The same bytes with others in one place."""
    at = at % len(content)
    return content[:at] + new + content[at + len(new) :]


IMAGES = {f"{i}.png": png(PIXELS[i]) for i in range(2)}
ZIP = packed(IMAGES)
CENTRAL = ZIP.index(b"PK\x01\x02")
BIG_PNG = png(np.zeros((4, 4), np.uint8))


def _labels(text: str | bytes) -> bytes:
    return packed({**IMAGES, "dataset.json": text})


def _named(names: list, label) -> str:
    return json.dumps({"labels": [[name, label] for name in names]})


LABELS = "dataset.json in .*"
ZIPS = [
    ("empty zip", packed({}), "no image in"),
    ("zip of text", packed({"a.txt": "x"}), "no image in"),
    ("zip of a folder called x.png", packed({"x.png/": ""}), "no image in"),
    ("zip of an image called as a folder", packed({"x.png/": png()}), "no image in"),
    ("zip cut short", ZIP[: len(ZIP) // 2], "x.zip is none of them"),
    ("zip without its end", ZIP[:-10], "x.zip is none of them"),
    ("zip whose data are damaged", patched(ZIP, 60, b"\xff" * 40), "cannot read .*0.png"),
    ("zip whose list is damaged", patched(ZIP, CENTRAL, b"XXXX"), "x.zip: is a damaged archive"),
    ("zip with an offset beyond", patched(ZIP, CENTRAL + 42, b"\xff\xff\xff\x7f"), "cannot read .*0.png"),
    ("zip that claims encryption", patched(ZIP, CENTRAL + 8, b"\x01"), "cannot read .*0.png.*encrypted"),
    ("zip of method 99", patched(ZIP, CENTRAL + 10, b"\x63\x00"), "cannot read .*0.png"),
    ("zip that claims 4 GB", patched(ZIP, CENTRAL + 24, b"\xf0\xff\xff\xff"), "cannot read .*0.png"),
    ("zip of damaged deflate", patched(packed(IMAGES, zipfile.ZIP_DEFLATED), 50, b"\xff" * 30), "cannot read .*0.png"),
    ("zip of damaged bzip2", patched(packed(IMAGES, zipfile.ZIP_BZIP2), 50, b"\xff" * 30), "cannot read .*0.png"),
    ("zip of damaged lzma", patched(packed(IMAGES, zipfile.ZIP_LZMA), 50, b"\xff" * 30), "cannot read .*0.png"),
    # Found by the fuzzer: zipfile says both names, of 5,000 characters each.
    ("zip of two long names", patched(packed({"a" * 5000 + ".png": png()}), 40, b"b"), "cannot read the image a+…"),
    ("100 MB called png", partial(zeros, "x.png", 100 << 20), "cannot read the image x.png"),
    ("100 MB after a tiff", partial(zeros, "x.tif", 100 << 20, png(kind="TIFF")), "unpacks to .* bytes, more than"),
    ("text called png", packed({"x.png": "hello"}), "cannot read the image x.png"),
    ("nothing called png", packed({"x.png": b""}), "cannot read the image x.png"),
    ("png cut short", packed({"x.png": png()[:200]}), "cannot read the image x.png"),
    ("jpeg cut short", packed({"x.jpg": png(kind="JPEG")[:300]}), "cannot read the image x.jpg"),
    ("tiff cut short", packed({"x.tif": png(kind="TIFF")[:300]}), "cannot read the image x.tif"),
    ("webp cut short", packed({"x.webp": png(kind="WEBP")[:100]}), "cannot read the image x.webp"),
    ("png of 10^10 pixels", packed({"x.png": patched(BIG_PNG, 16, struct.pack(">II", 10**5, 10**5))}),
     "cannot read the image x.png"),
    ("bmp of 10^9 rows", packed({"x.bmp": patched(png(kind="BMP"), 18, struct.pack("<ii", 10**5, 10**4))}),
     "cannot read the image x.bmp"),
    ("eps called png", packed({"x.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}),
     "cannot read the image x.png"),
    ("heic", packed({"x.heic": b"x"}), "formats that are not read: 1 .heic"),
    ("oblong images", packed({"x.png": png(PIXELS[0][:8])}), "expected 16×16 pixels .H×W., found 8×16"),
    ("images of two sizes", packed({**IMAGES, "1.png": png(PIXELS[1][:8])}), "1.png in .*expected 16×16 pixels"),
    ("float pixels", packed({"x.tif": png(np.zeros((16, 16), np.float32), "TIFF")}), "floating-point pixels"),
    ("wide integers", packed({"x.tif": png(np.full((16, 16), 70000, np.int32), "TIFF")}), "32-bit integers go from"),
    ("negative labels", _labels(_named(["0.png", "1.png"], -1)), f"{LABELS}whole numbers from 0 .*got -1"),
    ("labels of 10^30", _labels(_named(["0.png", "1.png"], 10**30)), f"{LABELS}whole numbers .*got an integer of 100"),
    ("labels of 2^31", _labels(_named(["0.png", "1.png"], 2**31)), f"{LABELS}whole numbers .*got 2147483648"),
    ("labels of true", _labels(_named(["0.png", "1.png"], True)), f"{LABELS}whole numbers .*got True"),
    ("labels of text", _labels(_named(["0.png", "1.png"], "1")), f"{LABELS}whole numbers .*got '1'"),
    ("labels of lists", _labels(_named(["0.png", "1.png"], [1])), f"{LABELS}whole numbers .*got a list"),
    ("labels of half the images", _labels(_named(["0.png"], 1)), f"{LABELS}has no label for 1 of 2 images"),
    ("labels of 10^5 levels", _labels('{"labels": ' + "[" * 100_000), f"{LABELS}should be"),
    ("labels of 5000 digits", _labels('{"labels": [["0.png", ' + "9" * 5000 + "]]}"), f"{LABELS}should be"),
    ("labels of numbers", _labels('{"labels": [1]}'), f"{LABELS}should be"),
    ("labels of one number", _labels('{"labels": 5}'), f"{LABELS}should be"),
    ("labels by numbers", _labels('{"labels": [[1, 2]]}'), f"{LABELS}should be"),
    ("labels of null names", _labels('{"labels": [[null, 2]]}'), f"{LABELS}should be"),
    ("no labels", _labels("{}"), f"{LABELS}should be"),
    ("a list for labels", _labels("[]"), f"{LABELS}should be"),
    ("labels cut short", _labels('{"labels": ['), f"{LABELS}should be"),
    ("labels in half of UTF-16", _labels(b"\xff\xfe{"), f"{LABELS}should be"),
    ("labels in latin 1", _labels(b'{"labels": [["\xe9", 1]]}'), f"{LABELS}should be"),
]  # fmt: skip

IMAGES_NPY = saved(PIXELS)
ARRAYS = [
    ("x.npy", "nothing", b"", "it is empty"),
    ("x.npy", "text", b"hello", "it is text"),
    ("x.npy", "cut short", IMAGES_NPY[:1000], "cannot read the array .*x.npy"),
    ("x.npy", "10^18 promised", npy(promise(f"({10**18}, 16, 16, 3)")), "cannot read the array"),
    ("x.npy", "2^70 promised", npy(promise(f"({2**70}, 16, 16)")), "cannot read the array"),
    ("x.npy", "a negative length", npy(promise("(-1, 16, 16)"), bytes(256)), "cannot read the array"),
    ("x.npy", "a shape of text", npy(promise("'x'"), bytes(256)), "cannot read the array"),
    ("x.npy", "a shape of floats", npy(promise("(1.0, 16, 16)"), bytes(256)), "cannot read the array"),
    ("x.npy", "a shape of booleans", npy(promise("(True, 16, 16)"), bytes(256)), "cannot read the array|expected"),
    ("x.npy", "a dtype of lists", npy(promise("(1, 16, 16)", "[[[]]]"), bytes(256)), "cannot read the array"),
    ("x.npy", "an unknown dtype", npy(promise("(1, 16, 16)", "'|q9'"), bytes(256)), "cannot read the array"),
    ("x.npy", "a structured dtype", npy(promise("(1, 16, 16)", "[('a', '|u1')]"), bytes(256)), "images must be uint8"),
    ("x.npy", "a header that is no dict", npy("[1, 2]", bytes(256)), "cannot read the array"),
    ("x.npy", "a header of code", npy("__import__('os').system('touch canary')", bytes(256)), "cannot read the array"),
    ("x.npy", "a header of 100 levels", npy("(" * 100, bytes(256)), "cannot read the array"),
    ("x.npy", "version 9", npy(promise("(1, 16, 16)"), bytes(256), b"\x09\x00"), "cannot read the array"),
    ("x.npy", "objects", npy(promise("(1,)", "'|O'"), bytes(64)), "holds Python objects"),
    ("x.npy", "floats", saved(PIXELS.astype(np.float32)), "images must be uint8"),
    ("x.npy", "complex numbers", saved(PIXELS.astype(np.complex64)), "images must be uint8"),
    ("x.npy", "no image", saved(PIXELS[:0]), "no image in"),
    ("x.npy", "images of size 0", saved(PIXELS[:, :0]), "no image in"),
    ("x.npy", "one image", saved(PIXELS[0, :, :, 0]), "expected images .N, H, W."),
    ("x.npy", "five axes", saved(PIXELS[None]), "expected images .N, H, W."),
    ("x.npy", "five channels", saved(np.zeros((2, 16, 16, 5), np.uint8)), "expected images .N, H, W."),
    ("x.npy", "oblong images", saved(PIXELS[:, :8]), "expected 16×16 pixels"),
    ("x.npz", "nothing", b"", "cannot read the array"),
    ("x.npz", "an empty zip", packed({}), "expected an array called images or arr_0 among none"),
    ("x.npz", "other names", packed({"a.npy": IMAGES_NPY, "b.npy": IMAGES_NPY}), "called images or arr_0 among a, b"),
    ("x.npz", "cut short", packed({"images.npy": IMAGES_NPY})[:1500], "cannot read the array"),
    ("x.npz", "a lying header", packed({"images.npy": npy(promise("(10000000, 16, 16, 3)"), bytes(768))}),
     "promises 7,680,000,000 bytes; 768 are there"),
    ("x.npz", "objects", packed({"images.npy": npy(promise("(1,)", "'|O'"), bytes(64))}), "holds Python objects"),
    ("x.npz", "text", packed({"images.npy": "hello"}), "cannot read the array"),
    ("x.npz", "a damaged member", patched(packed({"images.npy": IMAGES_NPY}), 400, b"\xff"), "cannot read the array"),
    ("x.npz", "a bomb", partial(zeros, "images.npy", 257 << 20, npy(promise("(1052672, 16, 16)"))), "as a decompres"),
    ("x.npz", "too few labels", packed({"images.npy": IMAGES_NPY, "labels.npy": saved(np.zeros(3, np.int64))}),
     "expected 4 whole-number labels"),
    ("x.npz", "negative labels", packed({"images.npy": IMAGES_NPY, "labels.npy": saved(np.full(4, -1))}),
     "labels must be from 0 .*got -1"),
    ("x.npz", "labels of 2^64", packed({"images.npy": IMAGES_NPY, "labels.npy": saved(~np.zeros(4, np.uint64))}),
     "labels must be from 0 .*got 18446744073709551615"),
    ("x.npz", "labels of floats", packed({"images.npy": IMAGES_NPY, "labels.npy": saved(np.zeros(4))}),
     "expected 4 whole-number labels"),
    ("x.png", "one image", png(), "expected a folder, zip or pk3"),
    ("x.tar", "no zip", b"hello", "expected a folder, zip or pk3"),
]  # fmt: skip


def _write(name, content, folder):
    (folder / name).write_bytes(content() if callable(content) else content)


def _training(prepare, name, folder):
    prepare(folder)
    return train(folder, "data.kind=images", f"data.path={name}", "data.resolution=16", "training.batch_size=2",
                 "sampling.count=1")  # fmt: skip


def _building(prepare, name, folder):
    prepare(folder)
    return ["dataset", name, "out.zip", "--resolution", "16"]


def _zero(folder):
    (folder / "x").mkdir()
    (folder / "x" / "a.png").symlink_to("/dev/zero")


def _nowhere(folder):
    (folder / "x").mkdir()
    (folder / "x" / "a.png").symlink_to("/nowhere")


def _pipe_linked(folder):
    (folder / "x").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "x" / "a.png").symlink_to(folder / "pipe")


def _pipe(folder):
    os.mkfifo(folder / "x")


def _sparse(folder):
    (folder / "x").mkdir()
    with (folder / "x" / "a.webp").open("wb") as file:
        file.write(png(kind="WEBP")[:12])
        file.truncate(3 << 30)


def _other_bytes(folder):
    (folder / "x").mkdir()
    with open(os.fsencode(folder / "x") + b"/\xff.png", "wb") as file:
        file.write(b"hello")


def _empty(folder):
    (folder / "x").mkdir()


FOLDERS = [
    ("a link to /dev/zero", _zero, "cannot read the image a.png in x: expected a file"),
    ("a link to nothing", _nowhere, "a.png"),
    ("a link to a pipe", _pipe_linked, "cannot read the image a.png in x: expected a file"),
    ("a pipe", _pipe, "expected a folder, zip or pk3"),
    ("a sparse file of 3 GB", _sparse, "expected at most 1,073,741,824 bytes; got 3,221,225,472"),
    ("a name that is not UTF-8", _other_bytes, r"cannot read the image .*\.png"),
    ("an empty folder", _empty, "no image in x"),
    ("nothing", lambda folder: None, "no such file or folder: x"),
]
# What `dataset` takes, or leaves out of what it takes.
SKIPS = (
    "oblong", "two sizes", "labels", "list for labels", "100 MB after a tiff", "data are damaged", "offset beyond",
    "claims encryption", "method 99", "claims 4 GB", "of damaged",
)  # fmt: skip

CASES = [
    *(Case(f"train: {name}", partial(_training, partial(_write, "x.zip", content), "x.zip"), words)
      for name, content, words in ZIPS),
    *(Case(f"dataset: {name}", partial(_building, partial(_write, "x.zip", content), "x.zip"),
           "no picture for training|no image in|none of them|damaged archive")
      for name, content, words in ZIPS if not any(word in name for word in SKIPS)),
    *(Case(f"{file}: {name}", partial(_training, partial(_write, file, content), file), words)
      for file, name, content, words in ARRAYS),
    *(Case(f"train: {name}", partial(_training, prepare, "x"), words) for name, prepare, words in FOLDERS),
    *(Case(f"dataset: {name}", partial(_building, prepare, "x"), f"{words}|no picture for training")
      for name, prepare, words in FOLDERS),
]  # fmt: skip
