"""``sqn-graph``: the wiring as text, Mermaid and SVG."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from flat import FLAT

from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.schema import SLOTS

SEEN = {slot.name for slot in SLOTS} - {"layers", "logger", "collect"}
"""The slots that data flows through."""
SVG = "{http://www.w3.org/2000/svg}"


def test_text_lists_the_keys_that_each_slot_reads_and_writes(command: Callable) -> None:
    done = command("graph", "num_envs=3", "batch_size=7", "encoder.hidden=[6,5]")
    assert (done.code, done.err, list(Path.cwd().iterdir())) == (0, "", [])
    blocks = {block.split()[0]: block.splitlines() for block in re.split(r"\n(?=\S)", done.out)}
    assert blocks.keys() == SEEN | {"settings"}
    assert blocks["env"] == [
        "env  GymEnv",
        "    reads   action  from actor",
        "    writes  observation [3, 4] float32",
        "    writes  next.observation [3, 4] float32",
        "    writes  next.reward [3] float32",
        "    writes  next.terminated [3] bool",
        "    writes  next.truncated [3] bool",
    ]
    assert blocks["encoder"][-1] == "    writes  features [2, 7, 5] float32"
    assert blocks["head"][1:] == [
        "    reads   features  from encoder",
        "    writes  q_values [2, 7, 2] float32",
    ]
    assert "    reads   batch.reward  from returns" in blocks["loss"]
    parameters = 2 * (4 * 6 + 6 + 6 * 5 + 5 + 5 * 2 + 2)
    assert blocks["optimizer"][-1] == f"    writes  parameters [{parameters}] float32"


def test_the_keys_that_parts_declare_are_drawn(command: Callable) -> None:
    """For example, soft n-step returns read the policy of the actor and α of the temperature."""
    for recipe, reads in {
        "sqn": {"returns": ["transitions"], "actor": ["action_value", "alpha"], "temperature": ["entropy"]},
        "dqn": {"returns": ["transitions"], "actor": ["action_value"]},
        "sqn_nstep": {"returns": ["transitions", "alpha", "log_policy"]},
        "discrete_sac": {"actor": ["observation"], "loss": ["alpha", "log_policy"]},
    }.items():
        blocks = re.split(r"\n(?=\S)", command("graph", f"recipe={recipe}").out)
        drawn = {block.split()[0]: re.findall(r"    reads   (\S+)", block) for block in blocks}
        assert {slot: drawn[slot][-len(keys) :] for slot, keys in reads.items()} == reads


def test_mermaid_is_a_flowchart_of_the_slots(command: Callable) -> None:
    first, *lines = command("graph", "--format", "mermaid").out.splitlines()
    assert first == "flowchart LR"
    boxes = [match[1] for line in lines if (match := re.fullmatch(r'    (\w+)\["\1<br/>\w+"\]', line))]
    arrows = [match for line in lines if (match := re.fullmatch(r'    (\w+) -- "[^"]+" --> (\w+)', line))]
    assert set(boxes) == SEEN
    assert len(boxes) + len(arrows) == len(lines)
    assert {("actor", "env"), ("env", "replay"), ("loss", "optimizer")} < {match.groups() for match in arrows}


CHANGED = {
    "sqn": set(),
    "sqn_dueling": {"head"},
    "sqn_dueling_per": {"head", "replay"},
    "sqn_noisy": {"encoder", "head"},  # their layers are noisy
    "sqn_nstep": {"returns"},
    "dqn": {"q_net", "actor", "loss", "temperature"},
    "discrete_sac": {"actor", "loss"},
}
"""By recipe, the boxes that differ from those of the recipe ``sqn``."""


@pytest.mark.parametrize("name", Catalogue().names(RECIPE))
def test_svg_shows_the_slots_of_every_recipe_and_marks_changed_ones(name: str, command: Callable) -> None:
    more = FLAT.get(name, ())
    done = command("graph", f"recipe={name}", "env=atari_ram", *more, "num_envs=1", "--format=svg")
    picture = ElementTree.fromstring(done.out)
    assert picture.tag == f"{SVG}svg"
    assert picture.findtext(f"{SVG}title") == " ".join([name, *more, "on atari_ram"])
    slots = [text for text in picture.iter(f"{SVG}text") if text.get("class") == "slot" and text.text in SEEN]
    assert {text.text for text in slots} == SEEN
    assert "observation [1×128] uint8" in [text.text for text in picture.iter(f"{SVG}text")]
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    boxes = [box for box in picture.iter(f"{SVG}rect") if box.get("rx") == "6"]
    corners = {(float(box.get("x", 0)), float(box.get("y", 0))): box.get("class") for box in boxes}
    for box in boxes:
        x, y, w, h = (float(box.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    kinds = {text.text: corners[float(text.get("x", 0)) - 10, float(text.get("y", 0)) - 18] for text in slots}
    if name in CHANGED:
        assert {slot for slot, kind in kinds.items() if kind in ("changed", "absent")} == CHANGED[name]


def test_text_lists_the_changes_to_the_base_recipe_by_slot(command: Callable) -> None:
    done = command(
        "graph", "recipe=sqn_nstep", "head=dueling", "layers=noisy", "loss.backup=sampled", "gamma=0.9"
    )
    blocks = {block.split()[0]: block for block in re.split(r"\n(?=\S)", done.out)}
    changes = {slot: re.findall(r"^    changed (.*)$", block, re.MULTILINE) for slot, block in blocks.items()}
    assert changes["head"] == ["dueling instead of linear"]
    assert changes["layers"] == ["noisy instead of dense"]
    assert changes["loss"] == ["backup sampled, not expected_mean"]
    assert changes["returns"] == ["n_step instead of one_step"]
    assert changes["settings"] == ["gamma 0.9, not 0.99"]
    assert not changes["replay"] + changes["q_net"] + changes["env"]


def test_an_environment_class_of_a_user_is_drawn(command: Callable, folder: Path) -> None:
    (folder / "worlds.py").write_text("import sqn_rl\nclass Own(sqn_rl.GymEnv):\n    'Own.'\n")
    done = command("graph", "--trust", "worlds.py", "env._target_=worlds.Own", "head=dueling")
    assert (done.code, done.err) == (0, "")
    names = [line for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert {"env  Own", "head  DuelingHead"} <= {*names}


def test_output_goes_to_a_file(command: Callable, folder: Path) -> None:
    shown = command("graph").out
    done = command("graph", "--output", "wiring.txt")
    assert (done.code, done.out) == (0, "")
    assert (folder / "wiring.txt").read_text() == shown


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["--output", "x.svg"], "<svg "),
        (["--output", "x.SVG"], "<svg "),
        (["--output", "x.mmd"], "flowchart LR\n"),
        (["--output", "x.md"], "flowchart LR\n"),
        (["--output", "x.txt"], "env  "),
        (["--output", "x.png", "--format", "svg"], "<svg "),
        (["--output", "x.svg", "--format", "text"], "env  "),
    ],
)
def test_the_format_follows_the_file_suffix_unless_given(
    arguments: list[str], start: str, command: Callable, folder: Path
) -> None:
    assert command("graph", *arguments).code == 0
    assert (folder / arguments[1]).read_text(encoding="utf-8").startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "no/such/folder/x.svg"], "--output no/such/folder/x.svg: No such file or directory\n"),
        (
            ["--output", "x.png"],
            "output = 'x.png': expected a file that ends in .txt, .md, .mmd, .svg, or --format\n",
        ),
        (["head=duelling"], "command line: head=duelling: there is no such part\n"),
        (["gamma=2"], "command line: gamma=2: expected a number in [0, 1]\n"),
        (
            ["initial_alpha=-1"],
            "command line: initial_alpha=-1: temperature.initial = -1: expected a number in [1e-12, 1e12]",
        ),
        (["seed=1,2"], "command line: seed=1,2: several values are a sweep\n"),
    ],
)
def test_an_invalid_argument_is_refused_without_output(
    arguments: list[str], message: str, command: Callable
) -> None:
    done = command("graph", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)


def test_an_unknown_format_is_refused(command: Callable) -> None:
    with pytest.raises(SystemExit, match="2"):
        command("graph", "--format", "png")


def _luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb``, by WCAG 2."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_picture_is_readable_on_light_and_on_dark_pages(dark: bool, command: Callable) -> None:
    """WCAG's contrast: 4.5 for text on each of its backgrounds, and 3 for lines on the page."""
    done = command("graph", "recipe=dqn", "--format=svg")
    picture = ElementTree.fromstring(done.out)
    light, dark_rules = (picture.findtext(f"{SVG}style") or "").split("@media (prefers-color-scheme: dark) ")
    rules = re.findall(r"([\w., ]+) \{([^}]*)\}", dark_rules.strip()[1:-1] if dark else light)
    colours: dict[tuple[str, str], str] = {}
    for names, body in rules:
        for kind, colour in re.findall(r"(fill|stroke): (#[0-9a-f]{6});", body):
            colours |= {(name.strip(" ."), kind): colour for name in names.split(",")}
    used = {name for each in picture.iter() for name in (each.get("class") or "").split()}
    grounds = [colours[kind, "fill"] for kind in ("page", "acting", "learning", "changed")]
    texts = {
        colours.get((name, "fill"), colours["text", "fill"]) for name in used & {"says", "faint", "change"}
    }
    for text in texts | {colours["text", "fill"]}:
        assert min(_contrast(text, ground) for ground in grounds) >= 4.5
    for name in ("acting", "learning", "changed", "absent", "arrow"):
        assert _contrast(colours[name, "stroke"], colours["page", "fill"]) >= 3
    assert (_luminance(colours["page", "fill"]) < 0.05) == dark
    assert {kind for each in picture.iter() for kind in ("fill", "stroke") if each.get(kind)} == set()


def test_the_graph_in_the_readme_is_up_to_date_and_links_to_its_full_size(command: Callable) -> None:
    """The README links to its full size, as its text of 11 pixels is small at the width of a page."""
    root = Path(__file__).parents[2]
    file = "docs/results/sqn_graph.svg"
    assert command("graph", "--format=svg").out == (root / file).read_text(encoding="utf-8")
    assert re.search(
        rf"\[!\[[^\]]+\]\({file}\)\]\({file}\)", (root / "README.md").read_text(encoding="utf-8")
    )
