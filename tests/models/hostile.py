"""Pickles that a checkpoint reader must refuse; each case is (name, bytes, what the refusal names)."""

import io
import pickle
import struct
import warnings
import zipfile

import numpy as np
import torch


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def text(value):
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def named(module, name):
    return text(module) + text(name) + b"\x93"


def program(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


def call(module, name, *arguments):
    """`module.name(*arguments)` of short texts or ready-made parts."""
    parts = [text(a) if isinstance(a, str) else a for a in arguments]
    return named(module, name) + b"(" + b"".join(parts) + b"tR"


PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")


def persistent(*items):
    """A persistent object's one dict, of (key, part) pairs."""
    pairs = b"".join(text(key) + part for key, part in items)
    return named(*PERSISTENT) + b"}(" + pairs + b"u\x85R"


def network(*keywords, kind="EDMPrecond"):
    """A network of these keyword arguments, without tensors."""
    pairs = b"".join(text(key) + part for key, part in keywords)
    state = b"}(" + text("_init_kwargs") + b"}(" + pairs + b"u" + text("_init_args") + b")u"
    return persistent(("type", text("class")), ("class_name", text(kind)), ("state", state))


def laughs(depth):
    """A list of one list, ten times: small here, and 10^depth items long when written out."""
    if depth == 0:
        return b"]\x94"
    return b"](" + laughs(depth - 1) + (b"h" + bytes([depth - 1])) * 9 + b"e\x94"


LAUGHS = laughs(30)


def old_torch(*pickles, tail=b""):
    return b"".join(pickles) + tail


MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)


def inner(content):
    """torch.storage._load_from_bytes(content)."""
    return named("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(content)) + content + b"\x85R"


def storage_bytes(tensor):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TypedStorage is deprecated, and what such checkpoints hold
        torch.save(tensor.storage(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def rebuild(storage, offset, size, stride):
    numbers = lambda values: b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"  # noqa: E731
    parts = inner(storage) + b"J" + struct.pack("<i", offset) + numbers(size) + numbers(stride) + b"\x89}"
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + parts + b"tR"


def zipped_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10_000_000)
    return buffer.getvalue()


def cases(canary):
    """All cases; those that would do something would write the file `canary`."""
    import builtins
    import os
    import subprocess

    touch = f"touch {canary}"
    evil = f"open({str(canary)!r}, 'w')"
    ours = storage_bytes(torch.ones(4))
    state = ("state", b"}")
    head = (("type", text("class")), ("class_name", text("EDMPrecond")))
    code_in_torch = old_torch(*MAGIC, pickle.dumps(Call(os.system, touch), 2), pickle.dumps([], 2))
    huge_claim = old_torch(
        *MAGIC,
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00aX\x03\x00\x00\x00cpu"
        b"\x8a\x08" + struct.pack("<q", 1 << 60) + b"NtQ.",
        pickle.dumps(["a"], 2),
        tail=struct.pack("<q", 1 << 60),
    )
    return [
        ("os.system", pickle.dumps(Call(os.system, touch)), r"(posix|nt)\.system"),
        ("os.system, protocol 0", f"cos\nsystem\n(S'{touch}'\ntR.".encode(), r"os\.system"),
        ("os.system, inst", f"(S'{touch}'\nios\nsystem\n.".encode(), r"os\.system|STRING"),
        ("eval", pickle.dumps(Call(eval, evil)), r"builtins\.eval"),
        ("exec", pickle.dumps(Call(exec, evil)), r"builtins\.exec"),
        ("old eval", f"c__builtin__\neval\n(V{evil}\ntR.".encode(), r"__builtin__\.eval"),
        ("__import__", pickle.dumps(Call(builtins.__import__, "antigravity")), r"builtins\.__import__"),
        ("open", pickle.dumps(Call(open, str(canary), "w")), r"io\.open|_io\.open"),
        ("subprocess", pickle.dumps(Call(subprocess.Popen, ["touch", str(canary)])), r"subprocess\.Popen"),
        ("getattr", program(call("builtins", "getattr", named("os", "system"), "x")), r"builtins\.getattr"),
        ("attribute chain", program(call("collections", "OrderedDict.__init__.__globals__")), "OrderedDict.__init__"),
        ("module prefix", program(call("torch", "_utils._rebuild_parameter.__globals__", "x")), "__globals__"),
        ("functools.partial", program(call("functools", "partial", named("os", "system"))), r"functools\.partial"),
        ("operator.attrgetter", program(call("operator", "attrgetter", "system")), r"operator\.attrgetter"),
        ("nested reduce", pickle.dumps({"ema": [({"a": Call(os.system, touch)},)]}), r"(posix|nt)\.system"),
        ("in a state", program(b"}", text("ema"), persistent(*head, ("state", b"}" + text("a") + call(
            "os", "system", touch) + b"s")), b"s"), r"os\.system"),
        ("in module_src", program(persistent(*head, ("module_src", call("os", "system", touch)), state)),
         r"os\.system"),
        ("torch.load", program(call("torch", "load", str(canary))), r"torch\.load"),
        ("torch serialization", program(call("torch.serialization", "_legacy_load")), r"torch\.serialization"),
        ("importlib", program(call("importlib", "import_module", "antigravity")), r"importlib\.import_module"),
        ("copyreg", program(call("copyreg", "_reconstructor", named("os", "system"))), r"copyreg\._reconstructor"),
        ("newobj", program(named("subprocess", "Popen"), b")\x81"), r"subprocess\.Popen"),
        ("newobj of a builder", program(named(*PERSISTENT), b")\x81"), r"_reconstruct_persistent_obj"),
        ("obj", program(b"(", named("collections", "OrderedDict"), text(touch), b"o"), "OBJ"),
        ("extension registry", program(b"\x82\x01"), "EXT1"),
        ("persistent id", program(text("x"), b"Q"), "BINPERSID"),
        ("buffers", program(b"\x97"), "NEXT_BUFFER"),
        ("a call of a call", program(call("collections", "OrderedDict"), b")R"), "a call of a dict"),
        ("a call of text", program(text("os.system"), b")R"), "a call of 'os.system'"),
        ("build on a builder", program(named(*PERSISTENT), b"}b"), "_reconstruct_persistent_obj"),
        ("build on an object", program(persistent(*head, state), b"}b"), "Record"),
        ("code in an inner torch file", program(inner(code_in_torch)), r"(posix|nt)\.system"),
        ("inner zip with code", program(inner(zipped_torch({"a": 1}))), "zip form"),
        ("inner zip bomb", program(inner(bomb())), "zip form"),
        ("inner claims 2^60 numbers", program(inner(huge_claim)), "claims 1152921504606846976 numbers"),
        ("inner garbage", program(inner(b"\x00" * 64)), "inner torch file"),
        ("inner truncated", program(inner(ours[:-3])), "inner torch file"),
        ("tensor beyond its storage", program(rebuild(ours, 2, [4], [1])), "reaches beyond"),
        ("tensor of 10^18 zeros", program(rebuild(ours, 0, [10**6, 10**6, 10**6], [0, 0, 0])), "reaches beyond"),
        ("negative stride", program(rebuild(ours, 0, [2], [-1])), "whole sizes and strides"),
        ("bytes of 2^62", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"ab", "not a whole pickle"),
        ("text of 2^31", b"\x80\x04X" + struct.pack("<I", (1 << 31) - 1) + b"ab", "not a whole pickle"),
        ("integer of 2^30 bytes", b"\x80\x04\x8b" + struct.pack("<i", 1 << 30) + b"ab", "LONG4|not a whole pickle"),
        ("7,000 bytes as text without quotes", program(b"S" + b"x" * 7000 + b"\n"), "not a whole pickle"),
        ("frame beyond the end", b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}", "not a whole pickle"),
        ("truncated", pickle.dumps({"ema": [1.0] * 50})[:-9], "not a whole pickle"),
        ("no stop", b"\x80\x04}", "not a whole pickle"),
        ("not a pickle", b"GIF89a" + bytes(100), "pickle"),
        ("memo index 2^31", program(b"}r", struct.pack("<I", 1 << 31), b"j", struct.pack("<I", 7)), "recalls value 7"),
        ("memo never stored", program(b"h\x05"), "recalls value 5"),
        ("memorized mark", program(b"(q\x00h\x00"), "stores a mark"),
        ("stack underflow", program(b"\x86"), "wrong operands"),
        ("no mark", program(b"t"), "no mark|wrong operands"),
        ("two values", program(b"}}"), "single value"),
        ("unhashable key", program(b"}]Ns"), "as a key"),
        ("dict of itself as a module", program(b"}\x94", text("ema"), b"h\x00s"), "'ema'"),
        ("object without a state", program(persistent(*head)), "_reconstruct_persistent_obj"),
        ("a function to reconstruct", program(persistent(("type", text("function")), ("class_name", text("f")), state)),
         "'function'"),
        ("a call of a list of 10^30 items", program(LAUGHS, b")R"), "a call of a list"),
        ("10^30 channels", program(b"}", text("ema"), network(("img_resolution", b"K\x08"), ("channel_mult", LAUGHS)),
         b"s"), "channel_mult must be"),
        ("10^9 noise levels", program(b"}", text("ema"), network(("img_resolution", b"K\x08"), ("M", b"J\x00\xca\x9a;"),
         kind="iDDPMPrecond"), b"s"), "steps must be whole"),
        ("dropout that is not a number", program(b"}", text("ema"), network(("img_resolution", b"K\x08"),
         ("dropout", b"G\x7f\xf8" + bytes(6))), b"s"), "dropout must be"),
        ("object dtype", program(call("numpy", "dtype", "O8", b"\x89", b"\x88")), "O8"),
        ("numpy object array", pickle.dumps(np.array([1, "a"], dtype=object)), r"numpy\._?core.*_reconstruct"),
        ("another class", program(b"}", text("ema"), persistent(("type", text("class")), ("class_name", text("Popen")),
         ("state", b"}(" + text("_init_kwargs") + b"}" + text("_init_args") + b")u")), b"s"), "'Popen'"),
    ]  # fmt: skip
