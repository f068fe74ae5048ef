"""Cards: what a reader is told of a trick, with how far claims were checked and what our grids found."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake_results
import pytest

from bench import cards
from bench.trick import FACTS, registry


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return fake_results.write(tmp_path_factory.mktemp("cards") / "results" / "digits").parent


@pytest.mark.parametrize("name", sorted(registry()))
def test_a_card_says_everything_the_trick_says(name, results):
    shown, card = registry()[name].card(), cards.card(name, results)
    for rule in cards.RULES:
        for other, why in shown[rule].items():
            assert f"{FACTS.get(other, other)}: {why}" in card
    assert shown["cost"] in card
    assert not shown["ganhacks"] or f"ganhacks: number {shown['ganhacks']}" in card
    unchecked = [claim for claim in shown["claims"] if claim["evidence"] == "recalled"]
    assert card.count("[not checked]") == len(unchecked)
    assert all(field["doc"] in card for field in shown["fields"])


def test_a_card_lists_verdicts_arm_by_arm(results):
    found = cards.verdicts(results)
    assert [seen.arm for seen in found["pooling"]] == ["pooling.kind=average", "pooling.kind=max"]
    line = next(line for line in cards.card("label_smoothing", results).splitlines() if "digits:" in line)
    assert re.search(r"digits: helps: FD ratio 0\.\d+ \(0\.\d+ to 0\.\d+\), label_smoothing", line)
    assert "found" not in cards.card("label_smoothing", results / "nowhere")


def test_tiny_results_and_broken_ones_are_no_evidence(results, tmp_path):
    for name in ("digits-tiny", "broken"):
        shutil.copytree(results / "digits", tmp_path / name)
    (tmp_path / "broken" / "runs.csv").write_text("nonsense\n")
    assert cards.verdicts(tmp_path) == {}


def test_prices_are_told_where_the_networks_change():
    [price] = cards.prices(registry()["pooling"])
    assert (price.values, price.parameters, price.multiply_adds) == ("defaults; kind max", "0.834", "1.62")
    assert cards.prices(registry()["label_smoothing"]) == []


def test_verdicts_need_no_torch():
    code = "import sys; from pathlib import Path; from bench import cards; cards.verdicts(Path('results'))"
    check = f"{code}; print('torch' in sys.modules)"
    root = Path(cards.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
