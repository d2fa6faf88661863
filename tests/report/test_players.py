"""Players and spectrograms of a comparison of sound, from files made by hand."""

import base64
import io
import json
import re
import wave

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from specreg.report import build_report, players
from specreg.report.reading import read_files

RATE = 8000


def write(path, samples, rate=RATE, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def tone(frequency, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


@pytest.fixture
def folder(tmp_path):
    names = ["a", "b", "c", "d", "e"]
    for k, name in enumerate(names):
        write(tmp_path / "truth" / f"{name}.wav", tone(300 + 100 * k, 7))
    for arm in ("none", "haar"):
        for seed in (0, 1):
            cell = tmp_path / f"{arm}-seed{seed}"
            for k, name in enumerate(names):
                write(cell / "samples" / f"{name}.wav", tone(300 + 100 * k, 7, 0.25))
            (cell / "results.json").write_text(json.dumps({"metrics": {"pesq": 1.5}, "samples": 5}))
    content = {
        "title": "Sound", "arms": [{"name": "none"}, {"name": "haar"}], "baseline": "none", "seeds": [0, 1],
        "cells": [{"arm": a, "seed": s, "folder": f"{a}-seed{s}"} for a in ("none", "haar") for s in (0, 1)],
        "metrics": {"pesq": {"label": "PESQ", "better": "higher"}},
        "table": [{"arm": a, "metric": "pesq", "mean": 1.5, "n": 2} for a in ("none", "haar")],
        "truth": {"kind": "recordings", "samples": 5, "metrics": {}},
        "missing": {"FAD": "FAD needs <weights>"}, "failures": {"PESQ": 3},
    }  # fmt: skip
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    return tmp_path


def test_clips_are_spread_and_cut_and_played_as_they_are(folder):
    found = players.clips(read_files(folder))
    assert [clip.name for clip in found] == ["a", "c", "e"]
    assert [take.title for take in found[0].takes] == ["recording", "none", "haar"]
    assert found[0].seconds == players.SECONDS
    with wave.open(io.BytesIO(found[0].takes[0].wav)) as file:
        heard = np.frombuffer(file.readframes(10**6), dtype="<i2")
    assert np.array_equal(heard, (tone(300, 7) * 32767).astype("<i2")[: int(players.SECONDS * RATE)])


def test_spectrogram_of_a_tone_peaks_at_its_band_and_halving_is_six_decibels(folder):
    recording, baseline, _ = players.clips(read_files(folder))[2].takes
    band = players.BANDS * np.log(700 / players.F_MIN) / np.log(RATE / 2 / players.F_MIN)
    middle = recording.decibels.shape[1] // 2
    assert abs(int(recording.decibels[:, middle].argmax()) + 0.5 - band) < 1
    drop = recording.decibels[:, middle].max() - baseline.decibels[:, middle].max()
    assert drop == pytest.approx(20 * np.log10(2), abs=0.05)
    assert recording.pixels.shape == (players.BANDS * players.PIXELS, recording.decibels.shape[1], 3)
    assert baseline.floor == recording.floor


def test_many_arms_mean_fewer_clips(folder, monkeypatch):
    monkeypatch.setattr(players, "MOST_BYTES", 250_000)  # one clip of three takes is 240,000 bytes
    assert [clip.name for clip in players.clips(read_files(folder))] == ["a"]


def test_page_has_players_and_says_what_is_missing(folder):
    page = build_report(folder).read_text(encoding="utf-8")
    players = re.findall(r'<audio controls preload="metadata" src="data:audio/wav;base64,([^"]+)"', page)
    assert len(players) == 9
    assert base64.b64decode(players[0])[:4] == b"RIFF"
    assert "media-src data:" in page
    assert "Not measured: FAD. FAD needs &lt;weights&gt;" in page
    assert "PESQ: 3 samples have no value" in page
    assert "real images" not in page
    assert (folder / "figures" / "clips.png").stat().st_size > 5000


def test_another_kind_of_wav_is_named(folder):
    write(folder / "truth" / "a.wav", tone(300), channels=2)
    with pytest.raises(ValueError, match=r"a\.wav: expected a mono 16-bit wav file \(2 channels"):
        players.clips(read_files(folder))
