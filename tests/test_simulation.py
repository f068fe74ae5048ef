"""The verdict engine on simulated grids with a known truth: STATISTICS.md section 2.4's table and 4.3, item 5.

Twelve tricks, one of which changes the score by a known factor and eleven do nothing; log scores of a seed correlate
by .3 between arms. In the failure rows the real trick's runs also fail with a given probability, nobody else's do.
"""

from math import comb
from typing import NamedTuple

import numpy as np
import pytest

from bench import stats, verdicts

TRICKS, RHO, WORST = 12, 0.3, 3.0  # WORST: log of the cap over the baseline's score


class Rates(NamedTuple):
    """How often, over the simulated grids: the real trick's verdicts, and what was said of the null tricks."""

    helps: float
    unstable: float
    false_calls: float  # grids in which any null trick is called helpful, harmful or unstable
    equivalent: float  # null tricks


def simulate(sigma, effect, n, failing=0.0, grids=500, seed=0):
    """Judge simulated grids; sigma: of a run's log score, effect: true factor - 1, failing: probability."""
    random = np.random.default_rng(seed)
    counts = np.zeros(4)
    for _ in range(grids):
        of_seed = RHO**0.5 * random.normal(0, sigma, n)
        logs = of_seed + (1 - RHO) ** 0.5 * random.normal(0, sigma, (TRICKS + 1, n))
        logs[1] += np.log(1 + effect)
        failed = random.random(n) < failing
        logs[1, failed] = WORST
        cases = [
            verdicts.Case(stats.compare(row, logs[0]), (int(failed.sum()) if i == 0 else 0, n), (0, n))
            for i, row in enumerate(logs[1:])
        ]
        real, *null = [v.word for v in verdicts.judge(cases)]
        counts += (
            real == "helps",
            real == "unstable",
            any(word in ("helps", "hurts", "unstable") for word in null),
            null.count("equivalent") / len(null),
        )
    return Rates(*(counts / grids).tolist())


# As in section 2.4 but for one cell: sigma .10, n = 20, -10 % is .76 there and .73 in 4,000 grids here (error .007).
# Measured here, 500 grids a row, helps at -5 / -10 / -20 / -40 %, false calls of any kind, null tricks equivalent:
#   .03 n 10: .65 / 1 / 1 / 1, .007, .97        n 20: .97 / 1 / 1 / 1, .000, 1
#   .06 n 10: .13 / .69 / 1 / 1, .030, .26      n 20: .44 / 1 / 1 / 1, .038, .78
#   .10 n 10: .04 / .23 / .91 / 1, .032, .01    n 20: .11 / .69 / 1 / 1, .041, .14
#   .20 n 10: .01 / .04 / .27 / .95, .032, 0    n 20: .03 / .15 / .80 / 1, .039, 0
# sigma: ({n: P(helps) at -5, -10, -20, -40 %}, {n: P(null -> equivalent)})
EFFECTS = (-0.05, -0.1, -0.2, -0.4)
TABLE = {
    0.03: ({10: (0.68, 1, 1, 1), 20: (0.97, 1, 1, 1)}, {10: 0.97, 20: 1.0}),
    0.06: ({10: (0.15, 0.71, 1, 1), 20: (0.43, 1, 1, 1)}, {10: 0.25, 20: 0.79}),
    0.10: ({10: (0.04, 0.21, 0.92, 1), 20: (0.13, 0.73, 1, 1)}, {10: 0.01, 20: 0.14}),
    0.20: ({10: (0.01, 0.03, 0.24, 0.96), 20: (0.02, 0.14, 0.82, 1)}, {10: 0.0, 20: 0.0}),
}


@pytest.mark.parametrize(
    ("sigma", "effect", "n", "power"), [(0.03, -0.1, 10, 1), (0.06, -0.1, 10, 0.71), (0.1, -0.2, 20, 1)]
)
def test_a_small_simulation_finds_what_the_table_says(sigma, effect, n, power):
    rates = simulate(sigma, effect, n, grids=80)
    assert rates.helps == pytest.approx(power, abs=3 * max(power * (1 - power), 0.01) ** 0.5 / 80**0.5 + 0.02)
    assert rates.false_calls < 0.05 + 3 * (0.05 * 0.95 / 80) ** 0.5
    assert rates.equivalent == pytest.approx(TABLE[sigma][1][n], abs=0.1)


def test_a_small_simulation_of_failures_calls_them_unstable_and_nothing_else():
    rates = simulate(0.04, -0.1, 10, failing=0.8, grids=40)
    assert rates.unstable > 0.8
    assert rates.helps == 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("sigma", TABLE)
def test_power_and_false_calls_are_those_of_the_table(sigma, n, capsys):
    rows = [simulate(sigma, effect, n, seed=i) for i, effect in enumerate(EFFECTS)]
    false, same = np.mean([r.false_calls for r in rows]), np.mean([r.equivalent for r in rows])
    with capsys.disabled():
        told = " / ".join(f"{r.helps:.2f}" for r in rows)
        print(f"\nsigma {sigma:.2f} n {n}: helps {told}; false calls {false:.4f}; null equivalent {same:.3f}")
    power, equivalent = TABLE[sigma]
    for row, expected in zip(rows, power[n], strict=True):
        assert row.helps == pytest.approx(expected, abs=0.06)
        assert row.false_calls < 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5
    assert false < 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5
    assert same == pytest.approx(equivalent[n], abs=0.06)


# What a trick that is truly 10 % better where it works, and fails so often, is called at sigma .04:
# {(share failing, n): (P(helps), P(unstable))}, measured here, 500 grids. STATISTICS.md section 2.4 has unstable in
# .07/.09, .62/.83 and .87/.96 (n = 10/20): that is Wilson's rule alone, as the second test shows. With Barnard's test
# and Holm over twelve tricks, which step 2 asks for, 6 failures of 10 against none are needed: an arm that fails in a
# fifth of its runs mostly ends as inconclusive, its failures beside it.
FAILING = {
    (0.05, 10): (0.55, 0.0),
    (0.05, 20): (0.74, 0.0),
    (0.2, 10): (0.10, 0.01),
    (0.2, 20): (0.08, 0.09),
    (0.3, 10): (0.02, 0.04),
    (0.3, 20): (0.01, 0.40),
}


@pytest.mark.slow
@pytest.mark.parametrize(("failing", "n"), FAILING)
def test_failing_tricks_are_called_what_was_measured(failing, n):
    row = simulate(0.04, -0.1, n, failing=failing)
    assert (row.helps, row.unstable) == pytest.approx(FAILING[failing, n], abs=0.07)
    assert row.false_calls < 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5


@pytest.mark.parametrize(("failing", "n", "said"), [(0.05, 10, 0.07), (0.2, 10, 0.62), (0.3, 20, 0.96)])
def test_wilsons_rule_alone_fires_as_often_as_the_specification_says(failing, n, said):
    chances = [comb(n, k) * failing**k * (1 - failing) ** (n - k) for k in range(n + 1)]
    assert sum(p for k, p in enumerate(chances) if verdicts.unstable(k, n)) == pytest.approx(said, abs=0.03)


def test_twelve_tricks_and_ten_seeds_need_six_failures_to_be_unstable():
    quiet = [verdicts.Case(stats.compare(np.zeros(10), np.zeros(10)), (0, 10), (0, 10))] * (TRICKS - 1)
    failing = [verdicts.Case(stats.compare(np.ones(10), np.zeros(10)), (k, 10), (0, 10)) for k in range(11)]
    words = [verdicts.judge([case, *quiet])[0].word for case in failing]
    assert words.index("unstable") == 6
