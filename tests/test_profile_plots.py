"""Percentiles, histograms and plots of any values."""

from __future__ import annotations

from xml.dom.minidom import parseString

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mdda.profiling import percentiles
from edge_mdda.profiling import report_svg as svg

TIMES = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=200)


@given(TIMES)
def test_percentiles_are_numpys(values):
    row = percentiles.summary(values)
    for name, quantile in percentiles.QUANTILES.items():
        if len(values) >= percentiles.needed_for(quantile):
            assert row[name] == pytest.approx(float(np.quantile(values, quantile)), abs=1e-3)
        else:
            assert row[name] is None


@given(TIMES)
def test_a_histogram_loses_nothing_and_plots(values):
    found = percentiles.histogram(values)
    assert sum(found["counts"]) + found["above"] == len(values)
    plot = svg.histogram(found["edges"], found["counts"], found["above"], {"p50": values[0]}, "ms")
    parseString(plot)
    assert "nan" not in plot


def test_quantiles_need_enough_values():
    needed = {name: percentiles.needed_for(quantile) for name, quantile in percentiles.QUANTILES.items()}
    assert needed == {"p50": 2, "p90": 10, "p95": 20, "p99": 100, "p99.9": 1000}
    assert percentiles.summary([float(n) for n in range(1000)])["p99.9"] == pytest.approx(998.001)
    with pytest.raises(ValueError, match="no values"):
        percentiles.summary([])


@given(st.lists(st.one_of(st.none(), st.floats(-1e4, 1e7, allow_nan=False)), min_size=1, max_size=40))
def test_series_with_gaps_plot(values):
    times = [float(n) for n in range(len(values))]
    plot = svg.lines(times, [("a & b", values, "#000")], "°C <b>", times[:1])
    parseString(plot)
    assert "nan" not in plot
    assert plot.count("<circle") + plot.count("<polyline") <= len(values)
