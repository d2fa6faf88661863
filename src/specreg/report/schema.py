"""What run folders hold, field by field: the only thing that the report and those who write the folders agree on.

A run folder:

    config.yaml          the run's config, every field
    metrics.jsonl        one JSON object for each logged step: see `LogRecord`
    results.json         see `ResultsRecord`
    samples/             samples in one of the forms below
    checkpoints/

A comparison is a folder of run folders, one for each arm and seed, with `comparison.json` (see `ComparisonRecord`),
`truth/` (real data in the form of samples), and `failure.json` (see `FailureRecord`) in a run whose training stopped
for good.

Forms of samples that the report shows; it ignores all others:

    samples.npy   uint8 [N, H, W, C], C = 1 or 3: pictures
    samples.npy   float [N, C, T]: small line plots
    samples.npy   float [N, C, H, W]: fields in data units, in colours
    *.wav         mono, 16 bit: players and spectrograms, the same names in every folder
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

LogRecord = TypedDict(
    "LogRecord",
    {
        "step": int,
        "loss": float,  # base + term
        "base": float,  # base loss
        "spectral": float | None,  # spectral loss, without λ
        "weight": float | None,  # λ times the noise weight
        "term": float | None,  # what is added to the base loss
        "lambda": float | None,  # λ
        "gradient_ratio": float | None,  # gradient of the term over that of the base loss, at the network's output
        "lr": float,
        "grad_norm": float | None,  # before clipping; null where it is not finite and the step was skipped
        "skipped": int,  # optimizer steps skipped so far, where there are any
        "seconds_per_step": float,
    },
    total=False,
)
"""One logged step; batch means over parts and processes, null for what was not measured."""


class SpectrumRecord(TypedDict):
    """A radially averaged power spectrum."""

    frequency: list[float]  # [F], cycles per sample
    power: list[float]  # [F], mean |coefficient of an orthonormal DFT|²


class DenoisingRecord(TypedDict):
    """One-step denoising of real data by noise level (L rows) and frequency band (K columns)."""

    timesteps: list[float]  # [L], times of the objective
    log_snr: list[float]  # [L], natural logarithm of α²/σ²
    edges: list[float]  # [K + 1], cycles per sample
    signal_power: list[float]  # [K], of the data
    error_db: list[list[float]]  # power of x0_hat − x0 relative to that of the data
    energy_db: list[list[float]]  # power of x0_hat relative to that of the data
    gain: list[
        list[float | None]
    ]  # Σ Re(X̂·conj X)/Σ |X̂|²: 1 is calibrated, below 1 x0_hat has too much, above too little
    pull_db: list[list[float]] | None  # power of the term's gradient relative to the base loss's


class MetricRecord(TypedDict):
    """How a metric is shown and read."""

    label: str
    unit: str
    better: Literal["lower", "higher", "zero", "none"]
    digits: int  # after the decimal point
    help: str
    absolute: bool  # a property of the samples alone, not a distance to real data
    side: Literal["samples", "denoising"]


class TruthRecord(TypedDict, total=False):
    """The real data."""

    kind: str  # what they are called, such as real images or recordings; default "real data"
    unit: str  # what samples are called, in the plural; default "samples"
    samples: int
    spectrum: SpectrumRecord
    metrics: dict[str, float]  # by name; a distance of some real data to the rest under "floor: " + name


class ResultsRecord(TypedDict, total=False):
    """results.json of a run."""

    version: int
    title: str
    command: str | None
    arm: str
    seed: int
    step: int
    sampling: dict[str, Any]  # that section of the config
    samples: int
    sampler: str  # in words
    metrics: dict[str, float]
    described: dict[str, MetricRecord]
    missing: dict[str, str]  # label of a metric to why it could not be measured
    failures: dict[str, dict[str, str]]  # label of a metric to samples without a value and why
    spectrum: SpectrumRecord
    denoising: DenoisingRecord
    skipped_steps: int  # optimizer steps that a gradient scaler skipped
    timing: dict[str, float]  # seconds_per_step, train_seconds
    truth: TruthRecord
    truth_sha256: str
    weights_sha256: str  # of the network, before any calibration
    parameters: int


class DifferenceRecord(TypedDict):
    """A paired difference over seeds with its 95% interval."""

    mean: float
    low: float
    high: float


class RowRecord(TypedDict, total=False):
    """One metric of one arm over its finished seeds."""

    arm: str
    metric: str
    mean: float
    std: float | None
    n: int
    low: float  # 95% interval of the mean over samples, where there are no seeds; not in comparison.json
    high: float
    difference: DifferenceRecord | None  # arm − baseline; for metrics that are best at 0, of absolute values
    verdict: str | None  # better, worse, no difference seen


class ArmRecord(TypedDict, total=False):
    """One arm of a comparison."""

    name: str
    label: str
    loss: dict[str, Any] | None  # the spectral section of its config


class CellRecord(TypedDict):
    """Where the run of an arm at a seed lies."""

    arm: str
    seed: int
    folder: str


class ComparisonRecord(TypedDict, total=False):
    """comparison.json."""

    title: str
    command: str
    created: str  # ISO 8601
    machine: str
    versions: dict[str, str]
    config: str  # YAML
    arms: list[ArmRecord]
    baseline: str
    seeds: list[int]
    cells: list[CellRecord]
    step_seconds: dict[str, float]  # seconds of the fastest training step, arms taking turns
    truth: TruthRecord
    missing: dict[str, str]
    failures: dict[str, int]
    metrics: dict[str, MetricRecord]
    table: list[RowRecord]


class FailureRecord(TypedDict):
    """failure.json: why a run stopped for good."""

    step: int
    message: str
