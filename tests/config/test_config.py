"""Composition and checks of the configuration: errors name the key and its allowed values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from reranker import config
from reranker.config import ROOT, Config
from reranker.config.schema import SEEDS
from reranker.errors import ConfigError
from reranker.tracking.store import default_uri


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return config.from_hydra(compose("config", overrides=list(overrides)))


def test_defaults_are_the_demo_with_weights_from_the_wheel() -> None:
    cfg = composed()
    assert (cfg.data.name, cfg.model.name, cfg.sampling.neg_ratio) == ("demo", "minilm_wheel", 3)


def seeds(cfg: Config) -> dict[str, object]:
    return {key: OmegaConf.select(OmegaConf.structured(cfg), key) for key in SEEDS}


def test_every_seed_is_0_as_it_was_before_there_was_one_seed() -> None:
    assert seeds(composed()) == dict.fromkeys(SEEDS, 0) == seeds(Config())


def test_the_schema_has_no_seed_that_does_not_follow() -> None:
    plain = OmegaConf.to_container(OmegaConf.structured(Config))
    found = [f"{g}.seed" for g, keys in plain.items() if isinstance(keys, dict) and "seed" in keys]
    assert {*found, "data.world.seed"} == set(SEEDS)


@given(
    seed=st.integers(0, 2**31),
    own=st.dictionaries(st.sampled_from(SEEDS), st.integers(0, 9), max_size=3),
)
@settings(max_examples=10, deadline=None)
def test_seeds_follow_the_seed_unless_they_are_set(seed: int, own: dict[str, int]) -> None:
    cfg = config.compose([f"seed={seed}", *(f"{key}={value}" for key, value in own.items())])
    assert cfg.seed == seed
    assert seeds(cfg) == dict.fromkeys(SEEDS, seed) | own
    assert all(isinstance(value, int) for value in seeds(cfg).values())


def test_a_seed_in_an_experiment_file_does_not_follow(
    tmp_path: Path,
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "own.yaml").write_text(
        "# @package _global_\nseed: 4\ntrainer: {seed: 5}\n"
    )
    own = (f"hydra.searchpath=[file://{tmp_path}]", "experiments=own")
    assert seeds(composed(*own)) == dict.fromkeys(SEEDS, 4) | {"trainer.seed": 5}
    assert seeds(composed(*own, "seed=6")) == dict.fromkeys(SEEDS, 6) | {"trainer.seed": 5}


def test_a_stored_config_keeps_its_seeds_with_and_without_the_one_seed() -> None:
    cfg = config.compose(["seed=3", "trainer.seed=5", "model=tiny"])
    stored = yaml.safe_dump(dataclasses.asdict(cfg))
    assert config.from_yaml(stored) == cfg
    before = {key: value for key, value in yaml.safe_load(stored).items() if key != "seed"}
    assert seeds(config.from_yaml(yaml.safe_dump(before))) == seeds(cfg)


def test_real_data_may_have_another_seed_but_no_world_of_its_own() -> None:
    real = ["data=bookdb", "data.root=somewhere"]
    assert composed(*real, "seed=3").data.seed == 3
    with pytest.raises(ConfigError, match=r"data\.world\.\* belongs to data=demo"):
        composed(*real, "seed=3", "data.world.seed=4")


def presets() -> list[str]:
    groups = (path for path in (ROOT / "conf").iterdir() if path.is_dir())
    return [f"{group.name}={file.stem}" for group in groups for file in group.glob("*.yaml")]


BOOKDB = ["data=bookdb", "data.root=folder"]


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_of_every_group_composes(preset: str) -> None:
    sources = ("bookdb", "bookdb_features", "ucsd", "goodbooks")
    needs = {f"data={name}": ["data.root=somewhere"] for name in sources}
    needs |= {
        "data=pairs": ["sampling.path=somewhere"],
        "model=path": ["model.path=somewhere"],
        "model=registered": ["model.uri=models:/book-reranker/1"],
        "engine=cluster": ["engine.address=tcp://127.0.0.1:8786"],
    }
    group, name = preset.split("=")
    cfg = composed(preset, *needs.get(preset, []))
    block = getattr(cfg, group)
    assert getattr(block, "name", name) == name


@pytest.mark.parametrize(
    "experiment", sorted(p.stem for p in (ROOT / "experiments").glob("*.yaml"))
)
def test_every_committed_experiment_composes(experiment: str) -> None:
    needs = ["data=bookdb", "data.root=somewhere"] if "goodreads" in experiment else []
    needs += ["trainer.teacher=models:/book-reranker@champion"] if experiment == "distil" else []
    assert composed(*needs, f"experiments={experiment}")


def test_the_command_line_may_change_the_model_and_lists_of_an_experiment() -> None:
    own = composed("experiments=original")
    assert (own.model.name, own.eval.list_kinds) == ("minilm", ["bookdb"])
    other = composed("experiments=original", "model=tiny", "eval=default", "sampling.neg_ratio=5")
    assert (other.model.name, other.model.activation) == ("tiny", "silu")
    assert (other.eval.list_kinds, other.sampling.negatives_per_positive) == (["uniform"], 3)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("seeds=3", "Did you mean seed?"),
        ("sampling.neg_rato=3", "Did you mean sampling.neg_ratio?"),
        ("data.world.tast=1", "data.world.taste"),
        ("modle=tiny", "Did you mean model?"),
        (
            "+surprise=1",
            "Choices at the top level: seed, data, sampling, model, trainer, eval, tracking",
        ),
        ("trainer.epochs.more=1", "unknown option 'trainer.epochs.more'"),
        ("data.storage.secret_key=canary", "'data.storage.secret_key=***': unknown option"),
    ],
)
def test_an_unknown_key_is_refused_with_the_choices(argument: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.check_overrides([argument])
    assert named in str(error.value)


def test_flags_and_keys_of_hydra_pass() -> None:
    config.check_overrides(
        [
            "-m",
            "--cfg=job",
            "hydra.job.chdir=false",
            "hydra/launcher=joblib",
            "model=minilm,bge",
            "sampling.mix.uniform=1",
            "data.genres.fantasy=[fantasy]",
            "+data.genres.cozy=[cozy-mystery]",
            "data/genres=goodreads",
        ]
    )


@pytest.mark.parametrize(
    ("override", "choices"),
    [
        ("model=huge", r"Available options in 'model':\s+bge\s+minilm"),
        ("experiments=goodreads_cp", r"\s+distil\s+goodreads_cpu\s+negatives\s+none"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_presets(override: str, choices: str) -> None:
    with pytest.raises(
        MissingConfigException,
        match=rf"Could not find '{override.replace('=', '/')}'[\s\S]*{choices}",
    ):
        composed(override)


@pytest.mark.parametrize("override", ["experiments=null", "model=3"])
def test_a_group_without_a_preset_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=f"'{override}': .* takes the name of a preset"):
        config.check_overrides([override])


@pytest.mark.parametrize(
    "override", ["sampling.neg_ratio=many", "trainer.learning_rate=[1]", "eval.list_kinds=3"]
)
def test_an_error_about_a_type_names_the_key(override: str) -> None:
    with pytest.raises(ConfigCompositionException) as error:
        composed(override)
    assert override.split("=")[0] in str(error.value) + str(error.value.__cause__)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ["trainer.precision=fp8"],
            "trainer.precision='fp8' is unknown; choose one of auto, fp32, bf16",
        ),
        (["eval.retriever=bm25"], "eval.retriever='bm25' is unknown; choose one of item_knn, ease"),
        (
            ["data.text_features=[readers]", "sampling=leave_one_out"],
            "data.text_features=['readers'] with sampling.context=leave_one_out",
        ),
        (
            ["data.text_features=[ease,ratings]"],
            "data.text_features: 'ratings' is unknown; choose from ease, authors, genres, readers",
        ),
        (
            ["data.text_features=[ease,ease]"],
            "each once; choose from ease, authors, genres, readers",
        ),
        (["data.text=short"], "data.text='short' is unknown; choose one of given, template"),
        (
            ["data.context_authors=-1"],
            "data.context_authors=-1 is impossible; it must be at least 0",
        ),
        (
            ["data.context_authors=3"],
            "show authors if the template has {authors} and data.context_authors is above 0",
        ),
        (
            ["data.context_template='{titles} | {authors}'"],
            "data.context_authors=0 with data.context_template=",
        ),
        (["eval.ease_books=1"], "eval.ease_books=1 is impossible; it must be at least 2"),
        (
            ["eval.list_kinds=[retriever]", "eval.retriever=ease", "eval.baselines=[item_knn]"],
            "whose order is the baseline ease, but eval.baselines=['item_knn'] lacks it; add it.",
        ),
        (
            ["eval.list_kinds=[uniform,dense]"],
            "eval.list_kinds: 'dense' is unknown; choose from uniform, popularity",
        ),
        (["eval.baselines=[]"], "list at least one"),
        (["sampling.neg_ratio=0"], "sampling.neg_ratio=0 is impossible; it must be at least 1"),
        (
            ["sampling.min_positives=9"],
            "sampling.max_positives=3 is impossible; it must be at least sampling.min_pos",
        ),
        (["eval.max_positives=30"], "below eval.n_candidates"),
        (["eval.cutoffs=[0,10]"], "eval.cutoffs=[0, 10] is impossible"),
        (["eval.cutoffs=[3]"], "lacks 10"),
        (
            ["eval.cutoffs=[10,10]"],
            "eval.cutoffs=[10, 10] is impossible; it must be distinct ranks of at least 1",
        ),
        (["eval.cutoffs=[]"], "eval.cutoffs=[] is impossible"),
        (["data.test_fraction=0.6", "data.dev_fraction=0.4"], "leave no train users"),
        (["data=bookdb"], "set data.root=FOLDER"),
        (
            ["data=bookdb", "data.root='http://host/x'"],
            "data.root=http://… is neither a folder nor s3://BUCKET/PREFIX",
        ),
        (
            ["data.storage.endpoint_url='https://a:b@host'"],
            "without credentials; these come from the environment",
        ),
        (["data.root=x"], "belongs to real data"),
        (["data=bookdb", "data.root="], "data.root is blank"),
        (["data=bookdb", "data.root=' '"], "data.root is blank"),
        (["cache_dir="], "cache_dir is blank"),
        (["tracking.uri="], "tracking.uri is blank"),
        (["trainer.checkpoint_dir="], "trainer.checkpoint_dir is blank"),
        (["trainer.learning_rate=inf"], "trainer.learning_rate=inf is impossible"),
        (["trainer.max_grad_norm=inf"], "trainer.max_grad_norm=inf is impossible"),
        (["sampling.popularity_exponent=nan"], "sampling.popularity_exponent=nan is impossible"),
        (["seed=-1"], "seed=-1 is impossible"),
        (
            ["sampling.negatives_per_positive=4"],
            "sampling.negatives_per_positive=4 is impossible; it must be from 1 to sampling.neg_r",
        ),
        (["sampling.negatives_per_positive=0"], "sampling.negatives_per_positive=0 is impossible"),
        (["trainer.warmup_steps=-1"], "trainer.warmup_steps=-1 is impossible"),
        (
            ["data.genres.war=[horror]"],
            "data.genres: shelf 'horror' means 'horror' and 'war'; list each shelf once",
        ),
        (["data.book_template=Books"], "data.book_template='Books': {title} is missing"),
        (
            ["data.context_template='{titles} | {title}'"],
            "data.context_template='{titles} | {title}': unknown field",
        ),
        (["data=bookdb", "data.root=x", "data.world.taste=2"], "data.world.* belongs to data=demo"),
        (["data.world.taste=-1"], "data.world.taste=-1.0 is impossible"),
        (["engine=cluster"], "engine.scheduler=cluster with engine.address=None"),
        (
            ["data.storage.checksum=never"],
            "data.storage.checksum='never' is unknown; choose one of when_required",
        ),
        (
            ["sampling.strategy=mix", "sampling.mix.uniform=0.5"],
            "must be at least 0 and add up to 1",
        ),
        (
            ["sampling.mix.uniform=1"],
            "belongs to sampling.strategy=mix, but sampling.strategy=uniform",
        ),
        (["model=minilm", "model.revision=null"], "model.source=hub needs model.revision"),
        (
            ["trainer.loss=lamda"],
            "trainer.loss='lamda' is unknown; choose one of bce, softmax, ranknet, lambdaloss",
        ),
        (
            ["trainer.loss=mse", "trainer.pos_weight=3"],
            "trainer.pos_weight=3.0 belongs to trainer.loss=bce",
        ),
        (
            ["trainer.loss=mse"],
            "trainer.loss=mse with trainer.teacher=None and trainer.teacher_weight=0.0: margin_mse",
        ),
        (
            ["trainer.teacher=somewhere"],
            "trainer.loss=bce with trainer.teacher=somewhere and trainer.teacher_weight=0",
        ),
        (
            ["trainer.teacher_weight=1"],
            "trainer.loss=bce with trainer.teacher=None and trainer.teacher_weight=1.0",
        ),
        (
            ["trainer.loss=mse", "trainer.teacher=bm25", "trainer.teacher_weight=1"],
            "learn only the teacher's scores",
        ),
        (
            ["trainer.loss=mse", "trainer.teacher=ease"],
            "trainer.teacher=ease: this baseline is built from all ratings, which",
        ),
        (
            ["trainer.loss=mse", "trainer.teacher=features_lr"],
            "trainer.teacher=features_lr with data.text_features=[]",
        ),
        (
            ["trainer.loss=mse", "trainer.teacher=bm25", "sampling=leave_one_out"],
            "trainer.teacher=bm25 with sampling.context=leave_one_out",
        ),
        (["data.rating_range=[1,10]"], "data.rating_range=[1.0, 10.0] and data.zero_rating=error"),
        ([*BOOKDB, "data.rating_range=[5,1]"], "data.rating_range=[5.0, 1.0] is impossible"),
        ([*BOOKDB, "data.rating_range=[1]"], "data.rating_range=[1.0] is impossible"),
        ([*BOOKDB, "data.positive_rating=8"], "data.positive_rating=8.0 is outside"),
        ([*BOOKDB, "data.zero_rating=rating"], "0 is outside the range"),
        ([*BOOKDB, "data.rating_range=null", "data.zero_rating=unrated"], "no ratings are read"),
        (["data.rating_range=null", "sampling=mix"], "sampling.mix.disliked=0.1 draws books"),
        (["model.layers=0"], "model.layers=0 is impossible; it must be at least 1, or null"),
        (
            ["trainer.stop_below_start=true", "trainer.n_evaluations=1"],
            "compares from the second evaluation on",
        ),
        (
            ["trainer.max_grad_norm=0"],
            "trainer.max_grad_norm=0.0 is impossible; it must be above 0, or null",
        ),
        (["model=path"], "model.source=path needs model.path, which is null"),
    ],
)
def test_an_error_about_a_value_or_combination_names_the_key(
    overrides: list[str], named: str
) -> None:
    with pytest.raises(ConfigError) as error:
        composed(*overrides)
    assert named in str(error.value)


def test_compose_returns_the_configuration_of_main_or_an_error() -> None:
    assert config.compose(["data=bookdb", "data.root=x"]) == composed("data=bookdb", "data.root=x")
    for override, message in {
        "model=huge": r"Could not find 'model/huge' Available options in 'model': bge",
        "sampling.neg_ratio=many": r"'many' of type 'str' could not be converted to Integer",
        "data.roto=x": r"Did you mean data\.root\?",
    }.items():
        with pytest.raises(ConfigError, match=message):
            config.compose([override])


def test_every_data_preset_has_the_genres_and_the_command_line_changes_them() -> None:
    demo, real = composed().data.genres, composed("data=bookdb", "data.root=x").data.genres
    assert demo == real
    assert demo["science fiction"] == ["science-fiction", "sci-fi", "scifi", "sf"]
    changed = composed(
        "data.genres.fantasy=[magic]",
        "+data.genres={space opera: [space-opera]}",
        "~data.genres.erotica",
    )
    own = {"fantasy": ["magic"], "space opera": ["space-opera"]}
    assert changed.data.genres == {k: v for k, v in (demo | own).items() if k != "erotica"}


@pytest.mark.parametrize(
    ("genres", "named"),
    [
        ({}, "data.genres is empty; choose a vocabulary, data/genres=goodreads"),
        ({"art, design": ["art"]}, "data.genres: 'art, design' is not a valid genre"),
        ({" art": ["art"]}, "data.genres: ' art' is not a valid genre"),
        ({"": ["art"]}, "data.genres: '' is not a valid genre"),
    ],
)
def test_an_invalid_genre_is_refused(genres: dict[str, list[str]], named: str) -> None:
    cfg = composed()
    with pytest.raises(ConfigError) as error:
        config.validate(dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, genres=genres)))
    assert named in str(error.value)


def test_a_folder_of_weights_has_no_settings_of_other_models(tmp_path: Path) -> None:
    model = composed("model=path", f"model.path={tmp_path}").model
    assert model == config.ModelConfig(name="path", source="path", path=str(tmp_path))
    assert model.dropout is None


def test_model_path_replaces_any_source_and_its_pin(tmp_path: Path) -> None:
    for preset in ("minilm_wheel", "minilm", "tiny"):
        chosen = composed(f"model={preset}").model
        model = composed(f"model={preset}", f"model.path={tmp_path}").model
        assert model == config.ModelConfig(
            name="path",
            source="path",
            path=str(tmp_path),
            max_length=chosen.max_length,
            dropout=chosen.dropout,
        )


def test_the_store_is_that_of_the_environment_or_of_the_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`reranker ui`, `reranker rerank` and Reranker.load have the same rule."""
    assert composed().tracking.uri == default_uri() == f"sqlite:///{ROOT}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert composed().tracking.uri == default_uri() == "http://127.0.0.1:5000"
    assert composed("tracking.uri=sqlite:////x/y.db").tracking.uri == "sqlite:////x/y.db"
