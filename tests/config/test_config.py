from pathlib import Path

import pytest
import yaml

from specreg.cli.train import path_overrides
from specreg.config import ConfigError, dump
from specreg.modalities import load, parse
from specreg.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_and_survive_yaml(name, tmp_path):
    config = parse(RECIPES[name]())
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert load(path) == config


def test_overrides_reach_into_sections_and_are_yaml():
    config = parse(
        {},
        [
            "training.steps=5",
            "data.squares=[2, 4]",
            "spectral.weight=0.5",
            "spectral.name=amplitude_phase",
            "spectral.options={coupling: norm}",
        ],
    )
    assert config.training.steps == 5
    assert config.data.squares == (2, 4)
    assert config.spectral.weight == 0.5
    assert config.spectral.options == {"coupling": "norm"}
    assert parse({"spectral": {"weight": 1}}, ["spectral=null"]).spectral is None


def test_what_yaml_reads_otherwise_is_still_a_word():
    config = parse({}, ["training.precision=no", "name=2026-11-22"])
    assert config.training.precision == "no"
    assert config.name == "2026-11-22"


NAMES = [
    "crops #1.zip", "2024", "007", "1e3", "yes", "null.zip", "2026-11-22", "[1, 2", "a: b", "'quoted'", "{x}", " x",
    "-", "1:30", "C:\\new\\table.zip", "\\\\server\\share\\photos", "Shot at 9.41.07\u202fAM.png", "caf\udce9.zip",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_taken_as_they_stand_and_survive_the_run_folder(name, tmp_path):
    data = {"data": {"kind": "images"}}
    config = parse(data, [f"data.path={name}", f"model.checkpoint={name}", "model.kind=pretrained"])
    assert config.data.path == config.model.checkpoint == Path(name)
    for ascii_only in (False, True):
        (tmp_path / "config.yaml").write_bytes(
            dump(config, ascii_only=ascii_only).encode("ascii" * ascii_only or "utf-8")
        )
        assert load(tmp_path / "config.yaml") == config
    assert parse(data, path_overrides(None, Path(name))).data.path == Path(name)


@pytest.mark.parametrize("text", ["2024", "007", "1_000", "2026-11-22", "yes", "1e4", "0x1F", "12:30"])
def test_files_keep_paths_and_texts_as_they_are_written(text, tmp_path):
    path, name = tmp_path / "x.yaml", text.replace(":", ".")
    path.write_text(f"title: {text}\nname: {name}\ndata: {{kind: audio, path: {text}, held_out: [{text}]}}\n")
    config = load(path, [f"data.test_path={text}", f"title={text}"])
    assert (config.data.path, config.data.test_path) == (Path(text), Path(text))
    assert (config.title, config.name, config.data.held_out) == (text, name, (text,))


def test_a_path_may_be_absent_or_under_home(monkeypatch):
    monkeypatch.setenv("HOME", "/of/me")
    monkeypatch.setenv("USERPROFILE", "/of/me")
    config = parse({"data": {"path": "~/a", "test_path": "b"}}, ["data.test_path=null"])
    assert (config.data.path, config.data.test_path) == (Path("/of/me/a"), None)
    assert parse({}, ["data.path=~"]).data.path == Path("/of/me")
    assert parse({}, ["data.path=~no-such-user/x"]).data.path == Path("~no-such-user/x")
    assert parse({"data": {"path": 2024}}).data.path == Path("2024")


def test_text_may_be_quoted():
    assert parse({}, ["title='a: #1'"]).title == "a: #1"
    assert parse({}, ["title=a: #1"]).title == "a: #1"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e4", 10_000), ("1E4", 10_000), ("1.5e1", 15), ("010", 10), ("1_000", 1000), ("+3", 3)],
)
def test_whole_numbers_are_read_as_people_write_them(text, value, tmp_path):
    assert parse({}, [f"training.steps={text}"]).training.steps == value
    (tmp_path / "x.yaml").write_text(f"training: {{steps: {text}}}")
    assert load(tmp_path / "x.yaml").training.steps == value


def test_other_numbers_are_read_as_people_write_them():
    options = ["spectral.name=haar", "spectral.options={band_weights: {1dd: 5e-1, 1ad: .5E+1, 1da: -2.}}"]
    assert parse({}, options).spectral.options["band_weights"] == {"1dd": 0.5, "1ad": 5.0, "1da": -2.0}
    assert parse({}, ["training.lr=1e-4", "training.weight_decay=1E-2"]).training.lr == 1e-4
    with pytest.raises(ConfigError, match=r"training.steps: .*got '1:30'"):
        parse({}, ["training.steps=1:30"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # PowerShell's > writes the last
def test_files_may_be_in_any_unicode_encoding(encoding, tmp_path):
    (tmp_path / "x.yaml").write_bytes("title: λ é\n".encode(encoding))
    assert load(tmp_path / "x.yaml").title == "λ é"


def test_a_field_of_several_kinds_has_one_sentence():
    with pytest.raises(ConfigError) as error:
        parse({}, ["data.kind=audio", "data.held_out=1.5"])
    assert str(error.value) == (
        "config: data.held_out: input should be less than 1, or input should be a list; got 1.5"
    )


def test_messages_show_text_as_the_user_wrote_it():
    with pytest.raises(ConfigError, match="got 'C:\\\\x\u202fy'"):
        parse({}, ["training.lr=C:\\x\u202fy"])


def test_the_given_tree_is_not_changed():
    tree = {"training": {"steps": 3}}
    parse(tree, ["training.steps=5"])
    assert tree == {"training": {"steps": 3}}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.step=5"], "no such key 'training.step' .did you mean 'steps'"),
        (["trainin.steps=5"], "no such key 'trainin' .did you mean 'training'"),
        (["model.periodic=true"], "model.periodic: only ddpmpp can be; got model.kind = small_unet"),
        (["arms.mine.wieght=1"], "no such key 'arms.mine.wieght' .did you mean 'weight'"),
        (["training.steps=0"], "training.steps: input should be greater than 0; got 0"),
        (["training.lr=fast"], "training.lr: .*valid number.*; got 'fast'"),
        (
            ["diffusion.prediction=eps"],
            "diffusion.prediction: input should be 'epsilon', 'v', 'x0', 'score' or 'flow'; got 'eps'",
        ),
        (["spectral.name=amplitud"], "did you mean 'amplitude'"),
        (["spectral.weight=.inf"], "spectral.weight: .*finite"),
        (
            ["spectral.name=amplitude_phase", "spectral.options={couplin: norm}"],
            "no option 'couplin' .did you mean 'coupling'",
        ),
        (["spectral.noise_weight=snrr"], "did you mean 'snr'"),
        (
            ["spectral.noise_weight=snr", "spectral.noise_options={clp: 5}"],
            "no option 'clp' .did you mean 'clip'",
        ),
        (["name=../x"], "name: string should match pattern"),
        (["name=.."], "name: string should match pattern"),
        (["training.steps"], "expected key=value"),
        (["arms={a b: null}"], "arms.*should match pattern"),
        (["arms={haar: {name: haar, options: {levels: three}}}"], "levels must be a whole number"),
        (["data.squares=[3]"], "data.squares: twice a side must divide the resolution 64; got 3"),
        (["data.resolution=50", "data.squares=[5]"], "data.resolution must be a multiple of 4"),
        (["sampling.steps=60", "diffusion.timesteps=50"], "sampling.steps must be at most diffusion.timesteps; got 60"),
        (["model.width=9"], "model.width must be even; got 9"),
        (["model.attention=[3]"], "model.attention: there are levels 0 to 2; got 3"),
        (["training.steps=[1"], "is not a YAML value"),
        (["training=3"], "training: input should be a section of keys with values; got 3"),
        (["data.squares=4"], "data.squares: input should be a list; got 4"),
        (["spectral.options=3"], "spectral.options: input should be keys with values; got 3"),
        (["spectral.options={ndim: two}"], "ndim must be 1, 2 or 3, or None .*; got 'two'"),
        (["spectral.name=haar", "spectral.options={band_weights: 5}"], "band_weights must be .*; got 5"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(overrides, words):
    with pytest.raises(ConfigError, match=words):
        parse({}, overrides)


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("0", 0.0), ("2", 2.0), ("auto", "auto")])
def test_lambda_is_a_number_however_yaml_reads_it_or_auto(text, value):
    assert parse({}, [f"spectral.weight={text}"]).spectral.weight == value


@pytest.mark.parametrize("text", ["abc", "true", "-1", ".nan", ".inf", "null"])
def test_other_lambdas_are_refused(text):
    with pytest.raises(ConfigError, match=r"spectral.weight: λ must be a finite number of at least 0, or auto .*; got"):
        parse({}, [f"spectral.weight={text}"])


def test_band_weights_are_checked():
    found = parse({}, ["spectral.band_weight=signal_gate", "spectral.band_options={margin_db: 3}"]).spectral
    assert (found.band_weight, found.band_options) == ("signal_gate", {"margin_db": 3})
    with pytest.raises(ConfigError, match="there is no band_weight to give options to"):
        parse({}, ["spectral.band_options={margin_db: 3}"])
    with pytest.raises(ConfigError, match="did you mean 'wiener'"):
        parse({}, ["spectral.band_weight=weiner"])


@pytest.mark.parametrize(("text", "words"), [
    ("training.steps=true", "training.steps: input should be a number; got True"),
    ("training.steps='1'", "training.steps: input should be a valid number, not text; got '1'"),
    ("training.steps=0x10", "training.steps: .*valid integer.*; got '0x10'"),
    ("data.squares=[true, 2]", "data.squares: input should be a number; got True"),
    ("data.channels=true", "data.channels: input should be a number; got True"),
    ("spectral.noise_options={clip: '5'}", "spectral.noise_options: input should be a valid number, not text; got '5'"),
    ("training.compile=1", "training.compile: input should be true or false; got 1"),
    ("training.lr=.inf", "training.lr: input should be a finite number; got inf"),
    ("spectral.ratio=1e400", "spectral.ratio: input should be a finite number; got inf"),
    ("spectral.options={a: [.nan]}", "spectral.options: expected finite numbers; got nan"),
    (f"seed={2**63}", "seed: input should be less than 9223372036854775808"),
    (f"sampling.seed={2**63 - 1}", r"sampling: expected seed \+ count of at most 2\^63"),
    (f"name={'a' * 121}", "name: string should have at most 120 characters"),
    ("title=\udcff", "title: input should be text in UTF-8"),
    ("data.path=\ud800", "data.path: input should be a path"),
    ("data.path=a\0b", "data.path: input should be a path"),
    (f"training.steps={'9' * 5000}", "training.steps: .*expected a number"),
])  # fmt: skip
def test_what_pydantic_would_take_or_no_file_can_hold_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse({}, [text])
    assert parse({}, ["sampling.churn_max=.inf"]).sampling.churn_max == float("inf")  # EDM's own default
    assert parse({}, [f"seed={2**63 - 1}"]).seed == 2**63 - 1


def _bomb(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(("text", "words"), [
    (_bomb(9), r"expected at most 20,000 values on 50 levels, counting aliases .*\(line 5, column 5\)"),
    ("a: " + "[" * 3000, "expected at most 50 levels"),
    ("a: &a [*a]", "an alias stands inside of what it stands for"),
    ("seed: 1\nseed: 2", "the key 'seed' is given twice"),
    ("a: !!python/object/apply:os.system [ls]", "expected plain values; got the tag"),
    ("seed: !!int x", "expected a number; got 'x'"),
    ("training: {compile: !!bool x}", "expected true or false; got 'x'"),
    ("title: 2026-13-45\nseed: [", "is not YAML"),
    ("a: " + "x" * 2**20, "expected at most 1,048,576 bytes"),
])  # fmt: skip
def test_yaml_that_is_no_config_is_refused_at_once(text, words, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"x\.yaml: .*{words}") as caught:
        load(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_aliases_may_be_used(tmp_path):
    (tmp_path / "x.yaml").write_text("title: 2026-13-45\narms: {a: &a {name: haar, weight: 2}, b: {<<: *a, weight: 3}}")
    config = load(tmp_path / "x.yaml")
    assert (config.title, config.arms["b"].name, config.arms["b"].weight) == ("2026-13-45", "haar", 3.0)


def test_devices_are_no_configs(tmp_path):
    (tmp_path / "x.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read: expected a file"):
        load(tmp_path / "x.yaml")


def test_every_bad_field_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        parse({}, ["training.steps=0", "training.lr=-1"])
    assert len(str(error.value).splitlines()) == 2


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list\.yaml: expected a mapping of sections; got list"):
        load(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [1,\n")
    with pytest.raises(ConfigError, match=r"torn\.yaml: is not YAML"):
        load(tmp_path / "torn.yaml")


def test_defaults_are_all_shown():
    config = parse({})
    shown = yaml.safe_load(dump(config))
    assert set(shown) == set(type(config).model_fields)
    assert shown["training"]["clip"] == 1.0


def test_an_arm_may_be_called_as_a_key_is():
    """Its name is no key: `arms.weight.kind` is a key of the arm."""
    with pytest.raises(ConfigError, match=r"no such key 'arms\.weight\.kind'; known: name, weight, ratio"):
        parse(RECIPES["textures"](), ["arms={weight: {name: haar, kind: 1}}"])


def test_a_list_of_bad_numbers_has_a_few_sentences():
    with pytest.raises(ConfigError) as refusal:
        parse(RECIPES["textures"](), [f"model.multipliers=[{', '.join(['x'] * 1000)}]"])
    lines = str(refusal.value).splitlines()
    assert len(lines) == 11
    assert lines[-1].endswith(" more fields are wrong")
