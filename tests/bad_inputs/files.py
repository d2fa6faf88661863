"""Bad configs and bad run folders."""

import json
import os

from bad_inputs.case import TINY, Case


def bomb(levels: int) -> str:
    """A few hundred bytes that stand for 10^levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


def deep(levels: int) -> str:
    """Aliases that stand for a list of lists of lists, …"""
    chain = [f"a{k}: &a{k} " + "[" * 40 + (f"*a{k - 1}" if k else "x") + "]" * 40 for k in range(levels)]
    return "\n".join(chain)


YAML = [
    ("aliases of aliases", bomb(9), "expected at most 20,000 values on 50 levels"),
    ("deep aliases", deep(30), "expected at most 20,000 values on 50 levels"),
    ("3000 levels", "a: " + "[" * 3000, "expected at most 50 levels"),
    ("a loop", "a: &a [*a]", "an alias stands inside"),
    ("a loop of keys", "a: &a {b: *a}", "an alias stands inside"),
    ("an unknown alias", "a: *b", "undefined alias"),
    ("a key twice", "seed: 1\nseed: 2", "the key 'seed' is given twice"),
    ("a key of a list", "? [a]\n: 1", "unhashable key"),
    ("code", "a: !!python/object/apply:os.system [touch canary]", "expected plain values; got the tag"),
    ("a tag of its own", "a: !mine 3", "expected plain values; got the tag"),
    ("a set", "a: !!set {x}", "expected plain values; got the tag"),
    ("binary", "a: !!binary eHg=", "expected plain values; got the tag"),
    ("no integer", "seed: !!int x", "expected a number; got 'x'"),
    ("no number", "training: {lr: !!float x}", "expected a number; got 'x'"),
    ("no boolean", "training: {compile: !!bool x}", "expected true or false; got 'x'"),
    ("a number of 5000 digits", "seed: " + "9" * 5000, "expected a number; got '9+…9+'"),
    ("a month 13 for a number", "seed: 2026-13-45", "seed: .*got '2026-13-45'"),
    ("2 MB", "title: " + "x" * (1 << 21), "expected at most 1,048,576 bytes"),
    ("a list", "- 1", "expected a mapping of sections; got list"),
    ("nothing", "", "expected a mapping of sections; got NoneType"),
    ("a word", "hello", "expected a mapping of sections; got str"),
    ("two documents", "seed: 1\n---\nseed: 2", "expected a single document"),
    ("a control character", "title: a\x07b", "special characters are not allowed"),
    ("cut short", "training: {steps: 5", "is not YAML"),
    ("a tab", "training:\n\tsteps: 5", "is not YAML"),
    ("a number as a key", "1: 2", "no such key '1'|keys should be strings"),
    ("half a pair", 'title: "\\ud800"', "title: input should be text in UTF-8"),
    ("merged with a number", "training: {<<: 3}", "expected a mapping"),
]
BYTES = [
    ("latin 1", b"title: caf\xe9", "is not YAML"),
    ("half of UTF-16", b"\xff\xfea", "is not YAML|expected a mapping"),
    ("a zip", b"PK\x03\x04" + bytes(60), "is not YAML"),
    ("zeros", bytes(1000), "is not YAML"),
]


def _yaml(content: bytes):
    def make(folder):
        (folder / "x.yaml").write_bytes(content)
        return ["train", "x.yaml", "training.steps=1"]

    return make


def _device(folder):
    (folder / "x.yaml").symlink_to("/dev/zero")
    return ["train", "x.yaml"]


def _pipe(folder):
    os.mkfifo(folder / "x.yaml")
    return ["train", "x.yaml"]


def _folder(folder):
    (folder / "x.yaml").mkdir()
    return ["train", "x.yaml"]


RESULTS = {"metrics": {"a": 1.0}, "step": 3, "seed": 0}
LOG = '{"step": 1, "base": 0.5}\n'

RUNS = [
    ("results cut short", {"results.json": '{"metrics": {'}, r"results.json: cannot be read as JSON"),
    ("results of a list", {"results.json": "[1]"}, r"results.json: expected a JSON object; got a list"),
    ("results of 10^5 levels", {"results.json": "[" * 100_000}, r"results.json: cannot be read as JSON"),
    ("results in UTF-16", {"results.json": b"\xff\xfe{\x00}\x00"}, r"results.json: cannot be read as JSON"),
    ("metrics of a list", {"results.json": {**RESULTS, "metrics": [1]}}, r"results.json.*metrics.*got"),
    ("a metric of a list", {"results.json": {**RESULTS, "metrics": {"a": [1]}}}, r"results.json.*metrics.*got"),
    ("a metric of text", {"results.json": {**RESULTS, "metrics": {"a": "x"}}}, r"results.json.*metrics.*got"),
    ("failures of a number", {"results.json": {**RESULTS, "failures": 3}}, r"results.json.*failures.*got"),
    ("described of a number", {"results.json": {**RESULTS, "described": 3}}, r"results.json.*described.*got"),
    ("timing of a list", {"results.json": {**RESULTS, "timing": [1]}}, r"results.json.*timing.*got"),
    ("a seed of a list", {"results.json": {**RESULTS, "seed": [1]}}, r"results.json.*seed.*got"),
    ("truth of a number", {"results.json": {**RESULTS, "truth": 3}}, r"results.json.*truth.*got"),
    ("a spectrum of text", {"results.json": {**RESULTS, "spectrum": "x"}}, "spectrum: expected lists of numbers"),
    ("denoising of text", {"results.json": {**RESULTS, "denoising": "x"}}, "denoising: expected arrays of numbers"),
    ("a log of lists", {"metrics.jsonl": "[1]\n" + LOG}, r"metrics.jsonl, line 1: expected a JSON object"),
    ("a log of text", {"metrics.jsonl": "hello\n" + LOG}, r"metrics.jsonl, line 1: expected a JSON object"),
    ("a log without steps", {"metrics.jsonl": '{"base": 1}\n' + LOG}, r"metrics.jsonl, line 1: .*'step' is missing"),
    ("a log of 10^5 levels", {"metrics.jsonl": "[" * 100_000 + "\n" + LOG}, r"metrics.jsonl, line 1: expected"),
    ("a huge step", {"metrics.jsonl": '{"step": 1' + 400 * "0" + "}\n" + LOG}, r"metrics.jsonl, line 1: expected"),
    ("samples that are text", {"samples/samples.npy": "hello"}, r"samples.npy: not a NumPy array file"),
    ("samples cut short", {"samples/samples.npy": b"\x93NUMPY\x01\x00v\x00{"}, r"samples.npy: not a NumPy array file"),
    ("a comparison cut short", {"comparison.json": "{"}, r"comparison.json: cannot be read as JSON"),
    ("a comparison of nothing", {"comparison.json": {}}, r"comparison.json: expected 'arms' to be a list; got nothing"),
    ("arms of numbers", {"comparison.json": {"arms": [1], "seeds": [], "cells": [], "metrics": {}, "table": []}},
     r"comparison.json: arms\[0\] has no field 'name'"),
    ("an unknown arm", {"comparison.json": {"arms": [], "seeds": [], "metrics": {}, "table": [],
     "cells": [{"arm": "x", "seed": 0, "folder": "x"}]}}, "comparison.json: cells names the arm 'x'"),
    ("a name of a list", {"comparison.json": {"arms": [{"name": [1]}], "seeds": [0], "cells": [], "metrics": {},
     "table": []}}, r"comparison.json: .*name.*got"),
    ("a seed that is a list", {"comparison.json": {"arms": [{"name": "a"}], "seeds": [[1]], "cells": [], "metrics": {},
     "table": []}}, r"comparison.json: .*seed.*got"),
    ("a config that is no UTF-8", {"config.yaml": b"title: \xff"}, r"config.yaml"),
]  # fmt: skip


def _run(files):
    def make(folder):
        run = folder / "run"
        run.mkdir()
        for name, content in {"config.yaml": TINY, "metrics.jsonl": LOG, **files}.items():
            path = run / name
            path.parent.mkdir(exist_ok=True)
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["report", "run"]

    return make


def _trained(folder):
    """A run of a network that has no public format; the fault is of the run, not of the file to write."""
    from specreg.modalities import load
    from specreg.training.trainer import Trainer

    (folder / "x.yaml").write_text(TINY)
    with Trainer(load(folder / "x.yaml"), folder / "run") as trainer:
        trainer.run()
    return ["convert", "run", "out.safetensors"]


CASES = [
    *(Case(f"yaml: {name}", _yaml(text.encode()), rf"x\.yaml: .*({words})") for name, text, words in YAML),
    *(Case(f"yaml: {name}", _yaml(content), rf"x\.yaml: .*({words})") for name, content, words in BYTES),
    Case("yaml: /dev/zero", _device, r"x\.yaml: cannot be read: expected a file"),
    Case("yaml: a pipe", _pipe, r"x\.yaml: cannot be read: expected a file"),
    Case("yaml: a folder", _folder, r"x\.yaml: cannot be read: expected a file"),
    Case("convert: a run of another network", _trained, "error: run: model.kind: expected a run of an EDM network"),
    *(Case(f"report: {name}", _run(files), words) for name, files, words in RUNS),
]
