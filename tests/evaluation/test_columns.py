"""A metric of another package is scored and gets its column like the project's own."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from scored_objects import NEAR, TRUTH

from fly64lib.design.registries import METRICS
from fly64lib.evaluation.columns import aligned_text, columns, markdown_table, number, table
from fly64lib.evaluation.scores import score_table
from ptycho_torch.errors import ConfigError

ROWS = [
    {"method": "good", "dose": 1000.0, "phase_psnr": 21.34, "photons_per_pixel": 1234.5},
    {"method": "flat", "dose": 1000.0, "phase_psnr": None, "photons_per_pixel": 1234.5},
]


def test_a_metric_of_another_package_has_its_value_its_skill_and_its_column(foreign_metric):
    near, flat, truth = score_table({"near": NEAR}, TRUTH)
    aligned = NEAR * np.exp(1j * np.angle(np.vdot(NEAR, TRUTH)))
    bias = abs(np.angle(aligned * TRUTH.conj()).mean())
    assert (near["phase_bias"], truth["phase_bias_skill"]) == (pytest.approx(bias), 1)
    column = columns()[foreign_metric]
    assert (column.title, column.text(0.25), column.curve) == ("phase bias / rad", "0.2500", True)
    heads, lines = table([near, flat, truth], "method")
    assert "phase bias / rad" in heads and f"{bias:.4f}" in lines[0]


def test_a_metric_that_cannot_be_loaded_is_named(foreign_metric, monkeypatch):
    gone = EntryPoint(foreign_metric, "other_phase_bias:gone", METRICS.group)
    monkeypatch.setitem(METRICS._places, foreign_metric, gone)
    with pytest.raises(ConfigError, match="'phase_bias' of another package.*gone"):
        columns()


def test_tables_hold_the_columns_that_a_row_fills_with_labels_units_and_three_digits():
    heads, lines = table(ROWS, "method", "dose")
    assert heads == ["method", "dose", "photons per object pixel", "phase PSNR / dB"]
    assert lines == [["good", "1,000", "1,234", "21.3"], ["flat", "1,000", "1,234", "–"]]
    assert markdown_table(heads[:1], [["good"]]) == "| method |\n| --- |\n| good |"
    text = aligned_text(heads, lines).splitlines()
    assert text[-1].split() == ["flat", "1,000", "1,234", "–"]
    assert len({len(line) for line in text}) == 1 and "photons per" in text[0]


def test_numbers_have_three_digits_and_what_is_not_there_is_a_dash():
    assert [number(value) for value in (None, 0.12345, 12345.6, np.inf)] == [
        *("–", "0.123", "12,346", "inf")
    ]
