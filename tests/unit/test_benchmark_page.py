"""What the benchmark's page says of a record, against figures that were worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, targets
from benchmarks.campaign import Campaign, Stretch, turned
from benchmarks.record import Key, Record


@pytest.fixture
def record() -> Record:
    """One window at 20 ms by four; a peer that cannot; W8's parts."""
    made = Record(where="a machine")
    for tool, wall, cpu in (
        ("floor", 0.20, 0.30),
        ("ours", 0.17, 0.27),
        ("rasterio-16", 0.34, 0.54),
        ("rasteret", 0.51, 0.81),
    ):
        for factor in (1.0, 0.5, 2.0):  # the median is the first
            made.add(Key("s2", "W1", 20, tool), _got(wall * factor, cpu * factor))
        made.verdicts[f"s2/W1/20/{tool}"] = "equal"
    made.verdicts["s2/W1/20/rasteret"] = "pixels: 1.00% differ, by at most 3"
    made.add(Key("s2", "W6", 20, "rasterio-16"), "UNABLE it has no index")
    made.add(Key("s2", "W8", 20, "ours"), _got(0.5, 0.4, open=1.2, window=0.3))
    made.add(Key("s2", "W8-one", 20, "ours"), _got(0.5, 0.4, open=0.1, window=0.2))
    return made


def _got(wall: float, cpu: float, **stages: float) -> dict[str, object]:
    counted = {"requests": 30, "bytes": 37_000_000, "rss": 100_000_000}
    return {"wall": wall, "cpu": cpu, **counted, "stages": stages, "versions": {"thing": "1.2"}}


def test_targets_are_met_or_not_by_the_medians(record: Record) -> None:
    text = targets.table(record)
    # 0.17 / 0.20 is within 0.9, 0.27 / 0.30 is not within 0.8; only 20 ms was measured.
    assert "| W1, wall at most 0.9 × the floor's | – | ×0.85 ✓ | – | – |" in text
    assert "| W1, CPU at most 0.8 × the floor's | – | ×0.90 ✗ | – | – |" in text
    assert "| W1 | ×2.00 ✓ (rasterio-16, of 2) |" in text
    assert "| W1: at least 2 times as fast as rasteret | `s2`, 20 ms | ×3.00 ✓ |" in text
    assert "| W1: at least 25 times as fast as serial rasterio | `s2`, 100 ms | – |" in text
    assert "| W8: opening takes less than 1 s | `s2`, 20 ms | 1.20 s ✗ |" in text
    assert "of a collection of one scene | `s2`, 20 ms | ×1.50 ✓ |" in text
    assert text.startswith("4 of 6 measured targets are met (✓).")


def test_ratios_are_within_rounds() -> None:
    """A peer that was measured once, while the machine was quick, stands beside what was measured then."""
    made, ours, peer = (
        Record(where="a machine"),
        *(Key("s2", "W4", 20, t) for t in ("ours", "rasteret")),
    )
    for wall in (4.0, 8.0, 8.0):
        made.add(ours, _got(wall, wall))
    assert targets.ratio(made, peer, ours) is None
    made.add(peer, _got(12.0, 12.0))
    assert targets.ratio(made, peer, ours) == 3.0
    made.add(peer, "more than 300 s")
    made.add(peer, _got(40.0, 40.0))
    assert targets.ratio(made, peer, ours) == 4.0  # of 3 and 5
    assert "| W4: at least 3 times as fast as rasteret | `s2`, 20 ms | ×4.00 ✓ |" in targets.table(
        made
    )


def test_cells_have_ratios_rounds_and_marks(record: Record) -> None:
    text = page.tables(record)
    assert "| the floor | 0.20 (0.30) <sup>3</sup> |" in text
    assert "| **this package**, lazy | 0.17 (0.27) ×0.85 (0.90) <sup>3</sup> |" in text
    assert "| rasteret, index prebuilt | 0.51 (0.81) ×2.55 (2.70) ≠ <sup>3</sup> |" in text
    assert "| rasterio, 16 threads | 2.0 (2.0) |" in text
    assert "| 30; 37; 100 |" in text
    assert "3 cells were compared with the floor's in every round" in text
    assert "- rasterio, 16 threads, W6: it has no index" in text


def test_the_page_keeps_what_stands_outside_its_marks(record: Record, tmp_path: Path) -> None:
    target = tmp_path / "page.md"
    target.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n", encoding="utf-8")
    page.write(record, target)
    page.write(record, target)
    text = target.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- table -->\n\na machine; 14 measurements by")
    assert text.endswith("<!-- /table -->\nafter\n")
    assert "old" not in text
    assert "Versions: thing 1.2." in text


def test_every_tool_is_first_middle_and_last_once() -> None:
    tools = tuple("abcdefghi")
    orders = [turned(Stretch("s2", "W1", 20, tools, rounds)).tools for rounds in (1, 2, 3)]
    assert orders[0] == tools
    assert all(sorted(order) == list(tools) for order in orders)
    assert [order[0] for order in orders] == ["a", "d", "g"]
    assert turned(Stretch("s2", "W1", 20, ("a",), 3)).tools == ("a",)


def test_pixels_that_differ_from_round_to_round_are_told(tmp_path: Path) -> None:
    campaign = Campaign(Record(tmp_path / "r.json", where="a machine"))
    floor, ours = (Key("s2", "W7", 20, tool) for tool in ("floor", "ours"))
    for key in (floor, ours):
        for crc in (1, 1):
            got = {**_got(1.0, 1.0), "result": {"pixels": [[2], crc]}}
            campaign.record.add(key, got)
            campaign._verify(key, got, tmp_path)
    assert campaign.record.verdicts[str(ours)] == "equal"
    odd = {**_got(1.0, 1.0), "result": {"pixels": [[2], 7]}}
    campaign.record.add(ours, odd)
    campaign._verify(ours, odd, tmp_path)
    assert campaign.record.verdicts[str(ours)] == "differs from round to round"
