"""Bad values of options and of a config's fields."""

from bad_inputs.case import Case, train

WHOLE = [
    "training.steps", "training.batch_size", "training.accumulate", "training.checkpoint_every", "training.keep",
    "training.log_every", "sampling.count", "sampling.batch_size", "sampling.steps", "data.resolution", "data.count",
    "model.width", "model.blocks", "model.patch_size", "diffusion.timesteps", "diffusion.updates",
]  # fmt: skip
NOT_WHOLE = ["true", "'1'", "0x10", "1.5", "0", "-1", ".nan", ".inf", "1e400", "x", "[1]", "{a: 1}", "null"]

FLOATS = ["training.lr", "training.weight_decay", "training.ema", "spectral.ratio", "spectral.weight", "data.contrast"]
NOT_FLOATS = ["true", "'1'", "0x10", ".inf", "-.inf", ".nan", "1e400", "-1", "x", "[1]", "9" * 400]

SEEDS = ["seed", "sampling.seed"]
NOT_SEEDS = ["9223372036854775808", "18446744073709551615", "18446744073709551616", "1e30", "-1", "true", "1.5", "'1'"]

TOO_LARGE = [
    ("data.resolution=1048576", "data.resolution, .*takes at least"),
    ("data.resolution=1000000000000000000000000", "data.resolution, .*takes at least"),
    ("data.count=1000000000000000000", "data.count: .*takes at least 8"),
    ("training.batch_size=1000000000000", "training.batch_size: .*takes at least"),
    ("model.blocks=1000000", "model.blocks: .*less than or equal to 64; got 1000000"),
    ("model.width=1000000", "model.width, .*takes at least"),
    ("model.multipliers=[1, 1000000]", "model.multipliers, .*takes at least"),
    (f"model.multipliers=[{', '.join(['1'] * 1000)}]", "model.multipliers: .*at most 16"),
    ("training.workers=100000", "training.workers: .*less than or equal to 1024; got 100000"),
    ("training.steps=100000000000", "training.steps: .*less than or equal to 99999999"),
    ("sampling.count=1000000000000", "sampling.count: .*takes at least"),
    ("sampling.seed=9223372036854775807", r"sampling: expected seed \+ count of at most 2\^63"),
    ("sampling.steps=1000000000000", "sampling.steps: .*less than or equal to 1000000"),
    ("diffusion.timesteps=1000000000000", "diffusion.timesteps: .*less than or equal to 1000000"),
    ("diffusion.updates=1000000000", "diffusion.updates: .*less than or equal to 1000"),
    ("model.classes=1000000000", "model.classes: .*less than or equal to 100000"),
    ("spectral.name=" + "haar+" * 1000 + "haar", "spectral.name: .*at most 120 characters"),
]
TOO_LARGE_SOUND = [
    ("vocoder.residual_layers=1000000000", "residual_layers must be a whole number from 1 to 1,000"),
    ("vocoder.residual_channels=1000000000", "residual_channels must be a whole number from 1 to 16,384"),
    ("vocoder.hop_samples=1000000000000000003", "hop_samples must be a whole number from 1 to 65,536"),
    ("vocoder.dilation_cycle_length=1000", "dilation_cycle_length must be a whole number from 1 to 24"),
    ("vocoder.n_fft=1000000000000", "n_fft must be a whole number"),
    ("vocoder.n_mels=1000000000000", "n_mels must be a whole number"),
    ("vocoder.crop_mel_frames=1000000000000", "crop_mel_frames must be a whole number"),
    ("vocoder.noise_schedule=[]", "noise_schedule must hold numbers"),
    ("vocoder.noise_schedule=[true]", "noise_schedule: input should be a number; got True"),
    ("training.batch_size=1000000000000", "training.batch_size, .*takes at least"),
    ("vocoder.residual_layers=1000 vocoder.residual_channels=16384", "vocoder.residual_layers, .*takes at least"),
]

OTHERS = [
    ("name=" + "a" * 300, "name: .*at most 120 characters"),
    ("name=" + "a" * 100_000, "name: .*at most 120 characters"),
    ("name=../x", "name: .*pattern"),
    ("name=", "name: .*pattern"),
    ("name=\udcff", "name: "),
    ("title=\udcff", "title: input should be text in UTF-8"),
    ("title=\ud800", "title: input should be text in UTF-8"),
    ("data.path=\ud800", "data.path: input should be a path"),
    ("data.path=a\0b", "data.path: input should be a path"),
    ("spectral.name=\udcff", "spectral.name: input should be text in UTF-8"),
    ("spectral.name=" + "x" * 100_000, "spectral.name: .*at most 120 characters"),
    ("training.precision=" + "x" * 100_000, "training.precision: .*got 'x+…x+'"),
    ("training.precision=true", "training.precision: .*got True"),
    ("data.channels=true", "data.channels: input should be a number; got True"),
    ("data.channels=2", "data.channels: .*got 2"),
    ("training.compile=1", "training.compile: input should be true or false; got 1"),
    ("training.compile='yes'", "training.compile: input should be true or false; got 'yes'"),
    ("spectral.options={a: .inf}", "spectral.options: expected finite numbers; got inf"),
    ("spectral.options={1: 2}", "spectral.options.*valid string; got 1"),
    ("spectral.options={ndim: true}", "ndim must be 1, 2 or 3, .*got True"),
    ("spectral.noise_options={clip: .inf}", "spectral.noise_options.clip: .*finite number"),
    ("spectral.noise_options={clip: true}", "spectral.noise_options: input should be a number"),
    ("spectral.band_weight=3", "band_weight must be one of"),
    ("arms={a: {weight: .inf}}", "arms.a.weight: λ must be a finite number"),
    ("arms={" + "a" * 300 + ": null}", "arms.*at most 120 characters"),
    ("data.squares=[true, 2]", "data.squares: input should be a number; got True"),
    ("data.squares=['2']", "data.squares: input should be a valid number, not text"),
    ("data.squares=[]", "data.squares: .*at least 1 item"),
    ("model.multipliers=[]", "model.multipliers: .*at least 1 item"),
    ("model.attention=[0.5]", "model.attention.0: .*got 0.5"),
    ("data.radii=[1, 1e300] data.kind=dead_leaves", "radii must be two numbers"),
    ("data.radii=[1e-9, 5] data.kind=dead_leaves", "radii must be two numbers .*discs"),
    ("data.kind=nothing", "data.kind must be one of"),
    ("data.kind=", "data.kind must be one of"),
    ("data=3", "data: input should be a section"),
    ("data=", "data: input should be a section"),
    ("training=[]", "training: input should be a section"),
    ("=1", "no such key ''"),
    ("x", "expected key=value"),
    ("a..b=1", "no such key 'a'"),
    ("training.steps=[1", "training.steps: .*is not a YAML value"),
    ("training.steps=&a [*a]", "an alias stands inside of what it stands for"),
    ("training.steps=!!int x", "expected a number; got 'x'"),
    ("training.steps=!!python/name:os.system", "expected plain values; got the tag"),
    ("training.steps=" + "[" * 3000, "expected at most 50 levels"),
    ("training.steps=" + "9" * 5000, "expected a number; got '9+…9+'"),
    ("sampling.churn_max=.nan", "sampling.churn_max: "),
    ("diffusion.objective=flow sampling.sampler=heun diffusion.density_options={std: 0}", "std must be positive"),
    ("training.batch_size=3 training.accumulate=2", "training.batch_size: expected a multiple of 2"),
]

MISUSED = [
    (["train", "no-such-recipe"], "expected a recipe .*got 'no-such-recipe'"),
    (["train", "x" * 100_000], "expected a recipe .*got 'x+…x+'"),
    (["train", "none.yaml"], "none.yaml: cannot be read"),
    (["train", "checkerboard", "--loss", "amplitud"], "did you mean 'amplitude'"),
    (["train", "checkerboard", "--loss", "haar@x"], "expected a number after @"),
    (["train", "checkerboard", "--loss", "haar@inf"], "λ must be a finite number"),
    (["train", "checkerboard", "--loss", "haar@auto:inf"], "finite number"),
    (["train", "checkerboard", "--weighted", "--loss", "none"], "--weighted: expected a spectral loss"),
    (["compare", "checkerboard", "--arms", ""], "loss must be one of .*got ''"),
    (["compare", "checkerboard", "--arms", "fft:l2"], "by Parseval a squared error"),
    (["compare", "checkerboard", "--arms", "ftt:l1"], "transform must be one of .*did you mean 'fft'"),
    (["compare", "checkerboard", "--arms", "fft:amplitude("], "expected a comparison such as"),
    (["compare", "checkerboard", "--arms", "dct:amplitude_phase"], "needs complex coefficients"),
    (["compare", "checkerboard", "--arms", "patches(0):l1"], "size of patches must be a whole number"),
    (["compare", "checkerboard", "--arms", "patches(7):l1"], "patches of 7 at every 7 samples must cover"),
    (["compare", "checkerboard", "--arms", "stft:l1"], "stft transforms 1 axes"),
    (["turbulence", "out", "--resolution", "18"], "resolution must be a multiple of 4; got 18"),
    (["turbulence", "out", "--viscosity", "-1"], "viscosity must be positive; got -1"),
    (["turbulence", "out", "--viscosity", "nan"], "viscosity must be positive; got nan"),
    (["turbulence", "out", "--seed", "-1"], "--seed"),
    (["train", "turbulence"], "data.path: expected a .npy or .npz of fields"),
    (["train", "turbulence", "data.path=none.npy"], "none.npy"),
    (["train", "turbulence", "data.flip=true"], "data.flip"),
    (["train", "turbulence", "sampling.clip=true"], "sampling.clip"),
    (["train", "turbulence", "spectral.name=fft:log_power", "spectral.options={tolerance: 0}"], "tolerance must be"),
    (["compare", "checkerboard", "--arms", "none"], "expected at least one arm beside 'none'"),
    (["compare", "checkerboard", "--arms", "haar@1e999"], "λ must be a finite number"),
    (["compare", "checkerboard", "--seeds", "1000000000000"], "1000"),
    (["compare", "checkerboard", "--seeds", "0"], "--seeds.*(greater than or equal to 1|x>=1)"),
    (["compare", "checkerboard", "--jobs", "x"], "--jobs.*valid integer"),
    (["sample", "none"], "none: expected a run folder"),
    (["sample", "none", "--seed", "9223372036854775808"], "9223372036854775807"),
    (["sample", "none", "--count", "1.5"], "expected a whole number of at least 1; got 1.5"),
    (["sample", "none", "--count", "inf"], "expected a whole number of at least 1; got inf"),
    (["sample", "none", "--count", "9" * 5000], "expected a whole number"),
    (["sample", "none", "--eta", "2"], "--eta.*(less than or equal to 1|<=1)"),
    (["report", "none"], "none: expected a comparison folder"),
    (["dataset", "none", "out.zip"], "no such file or folder: none"),
    (["dataset", ".", "out.tar"], "must end in .zip; got out.tar"),
    (["dataset", ".", "out.zip", "--resolution", "0"], "resolution"),
    (["dataset", ".", "out.zip", "--min-std", "nan"], "min.std.*(from 0 to 255; got nan|greater than or equal to 0)"),
    (["dataset", ".", "out.zip", "--channels", "2"], "channels must be 1 .grey. or 3"),
    (["dataset", ".", "out.zip", "--mode", "x"], "mode must be one of crop, tiles; got 'x'"),
    (["dataset", ".", "out.zip", "--test-fraction", "nan"], "test_fraction|test-fraction"),
    (["convert", "none.pkl", "x.pt"], "no such checkpoint: none.pkl"),
    (["reproduce", "table9"], "table must be one of table1, table2"),
    (["x" * 5000], "No such command"),
    (["train", "checkerboard", "--los" + "s" * 5000], "No such option"),
]


def _trains(overrides: str) -> Case:
    parts = (
        [overrides] if overrides.startswith(("spectral.", "data.squares", "arms", "model.", "training.steps")) else []
    )
    parts = parts or _split(overrides)
    return Case(overrides, lambda folder: train(folder, *parts), "")


def _split(overrides: str) -> list[str]:
    """Split at spaces that precede a key."""
    found: list[str] = []
    for part in overrides.split(" "):
        if found and ("=" not in part or not part.partition("=")[0].replace(".", "").replace("_", "").isalpha()):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def _case(overrides: str, words: str) -> Case:
    return _trains(overrides)._replace(name=ascii(overrides)[:60], words=words)


def _sound(overrides: str, words: str) -> Case:
    def make(folder):
        (folder / "sound.yaml").write_text("data: {kind: audio, path: none}\n")
        return ["train", "sound.yaml", *overrides.split(" ")]

    return Case(f"sound {overrides}"[:60], make, words)


CASES = [
    *(_case(f"{key}={value}", rf"{key}\b|sampling: expected seed") for key in WHOLE for value in NOT_WHOLE),
    *(_case(f"{key}={value}", key) for key in FLOATS for value in NOT_FLOATS),
    *(_case(f"{key}={value}", key) for key in SEEDS for value in NOT_SEEDS),
    *(_case(overrides, words) for overrides, words in (*TOO_LARGE, *OTHERS)),
    *(_sound(overrides, words) for overrides, words in TOO_LARGE_SOUND),
    *(
        Case(" ".join(arguments)[:60], lambda _, arguments=arguments: list(arguments), words)
        for arguments, words in MISUSED
    ),
]
