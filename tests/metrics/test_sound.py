"""Scores of sound: a function of the clips alone, however they are shared out, and equal to the parts' own formulas."""

import pickle

import numpy as np
import pytest
import torch

from specreg.data.mel import MelSettings, log_mel
from specreg.metrics import clip_intervals, sound
from specreg.metrics.audio import Pair, mr_stft
from specreg.metrics.clip_features import ClipFeatures, ClipRows
from specreg.metrics.frechet import GaussianStatistics, frechet_distance
from specreg.metrics.scores import ClipScores

RATE = 16_000
MEL = MelSettings(sample_rate=RATE, n_fft=256, hop=128, n_mels=8)
NAMES = ["c", "a", "f/2", "b", "e", "d"]


def clip(k, noise=0.0):
    """0.7 s of a chirp through noise: enough for every metric but PESQ, which also fails on silence."""
    t = np.arange(11_000) / RATE
    sound = 0.3 * np.sin(2 * np.pi * (150 + 40 * k) * t * (1 + t)) * (1 + np.sin(2 * np.pi * 4 * t)) / 2
    sound += (0.01 + noise) * np.random.default_rng(k + 100).standard_normal(len(t))
    return torch.from_numpy(sound.astype(np.float32))


@pytest.fixture(scope="module")
def clips():
    references = {name: clip(k) for k, name in enumerate(NAMES)}
    outputs = {name: clip(k, noise=0.05) for k, name in enumerate(NAMES)}
    outputs["silent"], references["silent"] = torch.zeros(8000), torch.zeros(8000)
    return outputs, references


def analysed(outputs, references, **options):
    return sound.analyse(outputs, references, RATE, lambda x: log_mel(x, MEL), **options)


def some(clips, names):
    return [{name: side[name] for name in names} for side in clips]


@pytest.mark.parametrize(
    "split",
    [
        [["c", "a", "f/2"], ["b", "e", "d", "silent"]],
        [["silent"], [], ["d", "b"], ["f/2", "c", "e", "a"]],
        [[name] for name in ["e", "silent", "c", "b", "a", "d", "f/2"]],
    ],
    ids=["halves", "with an empty part", "one each"],
)
def test_however_clips_are_shared_out_the_scores_are_the_same(split, clips, stand_ins):
    whole = sound.score(*clips, RATE, lambda x: log_mel(x, MEL))
    parts = [pickle.loads(pickle.dumps(analysed(*some(clips, names)))) for names in split]
    shared = sound.summarize(sound.merge(parts))
    assert {"pesq", "mr_stft", "lsd_db", "ndb", "ndb_js", "frechet_resemblyzer", "distill_mos"} <= whole.values.keys()
    assert list(shared.values) == list(whole.values)
    assert shared.values == pytest.approx(whole.values, rel=1e-9, abs=1e-9)
    assert shared.missing == whole.missing
    assert shared.failures == whole.failures
    assert set(whole.failures["pesq"]) >= {"silent"}


def test_values_are_the_formulas_of_the_clips(clips, stand_ins):
    outputs, references = clips
    found = sound.summarize(analysed(outputs, references)).values
    audible = [name for name in outputs if name != "silent"]
    pairs = {name: Pair(outputs[name], references[name]) for name in audible}
    distances = list(mr_stft(pairs).values.values())
    assert found["mr_stft"] == pytest.approx(np.mean(distances))
    loudness = [1 + outputs[name].abs().mean().item() for name in audible]
    assert found["distill_mos"] == pytest.approx(np.mean(loudness), rel=1e-6)

    def gaussian(side):
        from resemblyzer import VoiceEncoder

        rows = [VoiceEncoder("cpu", False).embed_utterance(x.numpy(), return_partials=True)[1] for x in side.values()]
        rows = np.concatenate(rows).astype(np.float64)
        mean, covariance = torch.from_numpy(rows.mean(0)), torch.from_numpy(np.cov(rows, rowvar=False))
        return GaussianStatistics(mean, covariance, len(rows))

    speaking = [{name: x for name, x in side.items() if name != "silent"} for side in clips]
    distance = sound.score(*speaking, RATE, lambda x: log_mel(x, MEL)).values["frechet_resemblyzer"]
    assert distance == pytest.approx(frechet_distance(*map(gaussian, speaking)), rel=1e-6)


def test_real_clips_have_floors_between_their_halves(clips, stand_ins):
    _, references = clips
    references = {name: x for name, x in references.items() if name != "silent"}
    found = sound.score_truth(references, RATE)
    names = sorted(references)
    even, odd = ({name: references[name] for name in names[k::2]} for k in (0, 1))
    between = sound.score(even, odd, RATE, lambda x: log_mel(x, MEL), paired=False)
    assert set(found) == {"distill_mos", "floor: frechet_resemblyzer"}
    assert found["floor: frechet_resemblyzer"] == pytest.approx(between.values["frechet_resemblyzer"], rel=1e-9)
    assert between.missing["pesq"] == "compares a vocoder's clips with their recordings"
    parts = [sound.analyse({name: references[name]}, {}, RATE, None, paired=False) for name in reversed(names)]
    assert sound.summarize_truth(sound.merge(parts)) == pytest.approx(found, rel=1e-9)


def test_what_is_missing_in_one_part_is_missing_in_the_whole(clips, stand_ins):
    a, b = (analysed(*some(clips, names)) for names in (["a", "b"], ["c"]))
    lacking = b._replace(
        scores={**b.scores, "pesq": ClipScores("PESQ", "", missing="no pesq here")},
        rows={**b.rows, "frechet_resemblyzer": b.rows["frechet_resemblyzer"]._replace(missing="no weights here")},
    )
    found = sound.summarize(sound.merge([a, lacking]))
    assert found.missing["pesq"] == "no pesq here"
    assert found.missing["frechet_resemblyzer"] == "no weights here"
    assert {"pesq", "frechet_resemblyzer"}.isdisjoint(found.values)
    assert "FAD needs vggish" in found.missing["fad"]
    assert "UTMOS needs a checkout" in found.missing["utmos"]


def test_parts_that_do_not_belong_together_are_refused(clips, stand_ins):
    a, b = (analysed(*some(clips, names)) for names in (["a", "b"], ["b"]))
    with pytest.raises(ValueError, match="1 clips are in more than one part: b"):
        sound.merge([a, b])
    with pytest.raises(ValueError, match="at least one part"):
        sound.merge([])
    with pytest.raises(ValueError, match="must have the same metrics"):
        sound.merge([a, sound.analyse({}, {}, RATE, None)])


def test_no_clips_and_clips_without_a_value_say_so(stand_ins):
    nothing = sound.summarize(analysed({}, {}))
    assert nothing.values == {}
    assert set(nothing.missing) == set(sound.SOUND_METRICS)
    assert nothing.missing["mr_stft"] == "no clip has a value; the first: no clips"
    silent = {"x": torch.zeros(20_000)}
    found = sound.summarize(analysed(silent, silent))
    why = "the recording cannot be scored against: all samples are 0"
    assert found.missing["pesq"] == f"no clip has a value; the first: {why}"
    assert found.failures["pesq"] == {"x": why}


def saturated(seed=0, share=0.6):
    """Noise at full scale for a share of its samples, and at a tenth of it for the others."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(20_000))
    return torch.where(torch.arange(20_000) < share * 20_000, noise.sign(), noise.clamp(-1, 1) / 10).float()


@pytest.mark.parametrize(
    ("real", "words"),
    [
        (torch.full((20_000,), 0.5), "all samples are 0.5"),
        (torch.ones(20_000), "all samples are 1"),
        (saturated(), "60% of the samples are saturated, at ±1"),
    ],
    ids=["constant", "constant at full scale", "saturated"],
)
def test_nothing_is_scored_against_recordings_that_are_constant_or_saturated(real, words, stand_ins):
    found = sound.summarize(analysed({"x": real, "y": real}, {"x": real, "y": real}))
    assert found.values == {}
    assert found.failures["mr_stft"] == dict.fromkeys("xy", f"the recording cannot be scored against: {words}")
    assert found.failures["distill_mos"] == dict.fromkeys("xy", words)
    assert found.missing["ndb"] == f"no recording can be scored against; the first, x: {words}"
    assert found.missing["frechet_resemblyzer"] == found.missing["ndb_js"] == found.missing["ndb"]
    assert sound.score_truth({"x": real, "y": real}, RATE) == {}


def test_bad_clips_beside_good_recordings_keep_their_bad_scores(stand_ins):
    real = {name: clip(k) for k, name in enumerate("xyz")}
    silent = {name: torch.zeros(11_000) for name in real}
    found = sound.summarize(analysed(silent, real)).values
    assert found["ndb"] > 0.5
    assert found["lsd_db"] > 20
    loud = real | {"x": saturated(share=0.4)}
    assert sound.summarize(analysed(loud, loud)).failures.get("mr_stft") is None


def test_clips_of_another_range_are_refused(stand_ins):
    real = {"x": clip(0)}
    with pytest.raises(ValueError, match=r"x: expected a clip with samples from -1 to 1; they reach \d+"):
        analysed(real, {"x": (clip(0) * 32768).round()})
    with pytest.raises(ValueError, match=r"x: expected a clip with samples from -1 to 1; they reach \d+"):
        analysed({"x": (clip(0) * 32768).round()}, real)


def test_intervals_end_where_the_metric_s_range_does():
    values = {"pesq": [4.6, 4.6, 2.0], "mr_stft": [0.0, 0.1, 3.0], "lsd_db": [0.0, 0.0, 9.0], "utmos": [1.0, 1.0, 4.0]}
    scores = {key: ClipScores(key, "", dict(zip("abc", each, strict=True))) for key, each in values.items()}
    random = np.random.default_rng(0)
    made, real = ({name: shift + random.standard_normal((20, 2)) for name in "abc"} for shift in (0.0, 0.0))
    rows = {"ndb": ClipRows(made, real), "fad": ClipRows({**made, "d": 50 + made["a"]}, real)}
    found = clip_intervals.intervals(ClipFeatures(scores, rows, {}, {}), [*values, "ndb", "ndb_js", "fad"])
    bounds = {"pesq": 4.644, "mr_stft": 0.0, "lsd_db": 0.0, "ndb": 0.0, "ndb_js": 0.0, "fad": 0.0}
    assert {name: found[name][name == "pesq"] for name in bounds} == bounds
    assert found["utmos"][0] < 1  # a prediction, which no range bounds
    assert 0 < found["ndb_js"][1] <= np.log(2)


def test_intervals_of_few_clips_are_those_of_student_s_t():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(1).normal(30, 2, 5)
    scores = {"lsd_db": ClipScores("LSD", "dB", dict(zip("abcde", values.tolist(), strict=True)))}
    found = clip_intervals.intervals(ClipFeatures(scores, {}, {}, {}), ["lsd_db"], draws=20_000)
    assert found["lsd_db"] == pytest.approx(ttest_1samp(values, 0).confidence_interval(), abs=0.03)
