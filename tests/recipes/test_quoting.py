"""A value survives being written and read again: in overrides, sweeps, jobs, recipe.yaml and commands."""

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from sqn_rl.analysis.grid import jobs_of, variants_of
from sqn_rl.cli.run import _jobs
from sqn_rl.cli.terminal import many
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.diff import changes_of
from sqn_rl.recipe.overrides import expand, parse
from sqn_rl.recipe.provenance import flow, override, read
from sqn_rl.recipe.resolved import of_recipe, of_run

NUMBERS = ["1", "-1", "1e3", "1E5", "1.5", ".5", "1_000", "0x10", "0o7", "010", "1:30", "nan", "inf"]
WORDS = ["true", "False", "yes", "on", "null", "None", "~", "2020-01-01", "2020-01-01 10:00:00", "<<"]
SIGNS = ["it's", 'say "x"', "a'\"b", "a,b", "[1]", "{a}", "{a: 1}", "a=b", "a: b", "# no", "a  # b"]
SIGNS += ["$x", "%s", "@", "!x", "&x", "*x", "- x", "? x", "|", ">", "`", ";", "(x)", "range(3)", "../x", "="]
SPACES = [" ", "a b", " a ", "a  b", "a\tb", "a\nb", "a\rb", "a\x85b", "a\u2028b", "\u00a0", "-"]
OTHERS = [
    "end\\\n",
    "über",
    "α",
    "漢字",
    "🙂",
    "\ufeff",
    "\x07",
    "\x1c",
    "\x7f",
    "\udcff",
    "\\",
    "a\\b",
    "end\\",
    "\\'",
]
NASTY = [*NUMBERS, *WORDS, *SIGNS, *SPACES, *OTHERS]
VALUES: list[Any] = [*NASTY, "-inf", ".inf", "runs/first", None, True, False, 0, -3, 1e-5, 1e22, math.inf]
VALUES += [[], [1, 2.5], NASTY, {"a": NASTY}]
OUTS = ["1e3", "it's", "true", " a b", "a, {b}: c=d  # e", "α", "a\nb", "end\\", "\udcff"]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:40])
def test_an_override_is_parsed_to_the_value_that_was_written(value: Any) -> None:
    (read_again,) = parse([override("name", value)])
    assert (read_again.value, type(read_again.value)) == (value, type(value))
    (job,) = expand([override("name", value)], Catalogue())
    assert parse(job)[0].value == value
    swept, _ = expand([f"{override('name', value)},0.125"], Catalogue())  # as a sweep writes it again
    assert (parse(swept)[0].value, type(parse(swept)[0].value)) == (value, type(value))
    assert shlex.split(shlex.join([override("name", value)])) == [override("name", value)]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:40])
def test_a_line_of_yaml_is_read_to_the_same_value_by_every_yaml_reader(value: Any, tmp_path: Path) -> None:
    text = flow(value)
    assert len(text.splitlines()) == 1
    path = tmp_path / "x.yaml"
    path.write_text(f"name: {text}  # comment\n", encoding="utf-8", errors="surrogatepass")
    if "\udcff" not in str(value):
        assert read(path, "x").values == {"name": value}
        assert OmegaConf.load(path).name == value
        assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"name": value}


@pytest.mark.parametrize("out", OUTS, ids=ascii)
def test_a_recipe_written_to_yaml_is_read_to_the_same_config(out: str, tmp_path: Path) -> None:
    recipe = compose_recipe("sqn", override("out", out), override("env.kwargs", {"a": NASTY}))
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").config == recipe.config
    there, here = of_run(tmp_path), of_recipe("", recipe)
    values = {key: each.value for key, each in there.values.items()}
    assert values == {key: each.value for key, each in here.values.items()}
    assert there.values["seed"].origin == "default of sqn_rl"
    assert "env" not in changes_of(there, Catalogue())


def test_unusual_keys_survive_a_round_trip_through_recipe_yaml(tmp_path: Path) -> None:
    recipe = compose_recipe("sqn")
    names = {name: index for index, name in enumerate(NASTY) if "." not in name and name != "\udcff"}
    recipe.config["env"]["kwargs"] = {"inner": names}
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").config == recipe.config


def test_ablation_jobs_receive_a_quoted_out_directory_unchanged() -> None:
    variants = variants_of(["head=linear,dueling"], Catalogue())
    for out in OUTS:
        own = many.own_settings([override("out", out), "seeds=2", "head=linear,dueling"], {"seeds": 5})
        assert own == (["head=linear,dueling"], {"seeds": 2}, Path(out))
        (job, _) = jobs_of(variants, 1, Path(out), Catalogue())
        assert compose_recipe("sqn", *job.overrides).run.out == str(Path(out, "base", "s0"))


def test_variants_with_similar_values_have_distinct_names() -> None:
    variants = variants_of(["loss.backup='a b',a_b,'a?b'"], Catalogue())
    assert len({variant.name for variant in variants}) == 4


class Arguments:
    config_dir: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    multirun = True

    def __init__(self, *overrides: str) -> None:
        self.overrides = [*overrides]


def test_only_the_last_of_two_equal_overrides_is_kept_at_its_position() -> None:
    texts = ["env.kwargs={k:1}", "env.kwargs.k=2", "env.kwargs={k:1}"]
    assert expand(texts, Catalogue()) == [["env.kwargs.k=2", "env.kwargs={k:1}"]]


def test_a_cast_value_keeps_its_type_in_a_sweep() -> None:
    jobs = expand(["name=str(3)", "other=choice(str(3), 4, [str(5)])"], Catalogue())
    assert [[each.value for each in parse(job)] for job in jobs] == [["3", "3"], ["3", 4], ["3", ["5"]]]


@pytest.mark.parametrize("texts", [["seed=range(1000000000)"], ["seed=range(200)", "steps=range(200)"]])
def test_a_sweep_of_too_many_jobs_is_refused_before_it_fills_the_memory(texts: list[str]) -> None:
    with pytest.raises(RecipeError, match="more than 10,000 jobs"):
        expand(texts, Catalogue())


def test_a_sweep_with_unusual_out_directories_keeps_their_names() -> None:
    for text in OUTS:
        jobs = _jobs(Arguments(override("out", text), "seed=0,1"))  # type: ignore[arg-type]
        assert [recipe.run.out for _, recipe in jobs] == [f"{text}/seed=0", f"{text}/seed=1"]
    swept = "out=" + ",".join(override("", text).removeprefix("=") for text in OUTS)
    assert [recipe.run.out for _, recipe in _jobs(Arguments(swept))] == OUTS  # type: ignore[arg-type]


def test_an_escaped_interpolation_of_an_unknown_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="there is no `x`"):
        compose_recipe("sqn", r"out='\${x}'")
