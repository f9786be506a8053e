"""Folded blocks in the export: evidence can be folded again from them, and no decision waits for the sink."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from fiduciary.cli.refold import compare, main
from fiduciary.clients.exports import Files
from fiduciary.decide.experiment.world import Exported
from fiduciary.engine.experiments import exporting
from fiduciary.engine.experiments.exporting import Exporter
from tests.unit.engine.trial_story import TrialStory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

TRANSITIONS = ("begin", "block", "watch")
MIB = 1 << 20


class Written:
    """An export that takes everything at once, but for what is lost while it is away."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.away = False

    async def put(self, key: Any, file: str, lines: Sequence[str]) -> None:
        self.lines += () if self.away else lines

    def state(self, key: Any, file: str) -> Exported:
        return Exported(file, why="it is away" if self.away else "")

    def drop(self, key: Any) -> None:
        pass


class ExportStory(TrialStory):
    def __init__(self) -> None:
        self.exports = Written()
        super().__init__()


def test_the_evidence_of_a_promotion_and_its_watch_is_folded_again_to_the_same_bits() -> None:
    story = ExportStory()
    story.reaches("half")
    story.run_for(60)
    story.process = story.born()  # what the next process folds goes on in the same file
    story.until("Promoted")
    story.run_for(300)
    assert {json.loads(line)["kind"] for line in story.exports.lines} == set(TRANSITIONS)
    assert story.stored().state.evidence.guardrails[0].watch is not None
    wrong, told = compare(story.exports.lines, story.mx)
    assert not wrong, told
    assert story.condition("Exported") == ("True", "BlocksExported")
    folded = story.stored().state.evidence.last
    assert f"blocks up to {folded} hash to" in told
    # half a line of a full disk, and what a process wrote whose status nobody has
    extra = json.dumps({"kind": "block", "before": story.stored().state.evidence.chain, "after": "x", "block": {}})
    assert not compare([*story.exports.lines, extra, extra[:20]], story.mx)[0]
    changed = [line.replace('"weight":50', '"weight":49') for line in story.exports.lines]
    assert compare(changed, story.mx)[0]


def test_an_export_that_is_away_stops_no_decision_and_the_hole_is_found() -> None:
    story = ExportStory()
    story.reaches("half")
    story.exports.away = True
    story.run_for(120)
    assert story.condition("Exported") == ("False", "ExportFailing")
    story.exports.away = False
    story.until("Promoted")
    wrong, told = compare(story.exports.lines, story.mx)
    assert wrong
    assert "is not in the export" in told


# --- the sink


def run(scenario: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def until(condition: Any) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


def test_lines_are_on_the_disk_when_the_call_returns(tmp_path: Path) -> None:
    async def scenario() -> None:
        exporter = Exporter(Files(tmp_path, MIB), lambda key: None)
        running = asyncio.create_task(exporter.run())
        await exporter.put("a", "quant/a.1.jsonl", ["1", "2"])
        assert (tmp_path / "quant" / "a.1.jsonl").read_text() == "1\n2\n"
        await exporter.put("a", "quant/a.1.jsonl", ["3"])
        assert exporter.state("a", "quant/a.1.jsonl") == Exported("quant/a.1.jsonl")
        exporter.close()
        await running
        assert (tmp_path / "quant" / "a.1.jsonl").read_text() == "1\n2\n3\n"

    run(scenario)


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('1\n{"half')
    Files(tmp_path, MIB).append("a", ["2"])
    assert (tmp_path / "a").read_text() == '1\n{"half\n2\n'


def test_full_files_are_followed_by_numbered_ones_and_stay_as_they_are(tmp_path: Path) -> None:
    def files() -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((tmp_path / "quant").iterdir())}

    for text in ("1", "2", "3", "4"):
        Files(tmp_path, 3).append("quant/a.1.jsonl", [text])  # a new process each time
    Files(tmp_path, 3).append("quant/a.12.jsonl", ["of another experiment"])
    assert files() == {"a.1.jsonl": "1\n2\n", "a.1.2.jsonl": "3\n4\n", "a.12.jsonl": "of another experiment\n"}
    one = Files(tmp_path, 3)
    for text in ("5", "6", "7"):
        one.append("quant/a.1.jsonl", [text])
    (tmp_path / "quant" / "a.1.jsonl").unlink()  # who keeps evidence moved it away
    (tmp_path / "quant" / "a.1.2.jsonl").unlink()
    one.append("quant/a.1.jsonl", ["8"])
    Files(tmp_path, 3).append("quant/a.1.jsonl", ["9"])
    assert files() == {
        "a.1.3.jsonl": "5\n6\n", "a.1.4.jsonl": "7\n8\n", "a.1.5.jsonl": "9\n", "a.12.jsonl": "of another experiment\n",
    }  # fmt: skip


def test_an_export_in_several_files_is_folded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = ExportStory()
    story.reaches("half")
    story.run_for(300)
    files = Files(tmp_path, 2_000)
    for line in story.exports.lines:
        files.append("a.jsonl", [line])
    status = tmp_path / "mx.json"
    status.write_text(json.dumps(story.mx))
    exports = sorted(map(str, tmp_path.glob("*.jsonl")))
    assert len(exports) > 2
    assert main([*exports, str(status)]) == 0
    assert "hash to" in capsys.readouterr().out
    for missing in range(len(exports)):
        rest = exports[:missing] + exports[missing + 1 :]
        assert main([*rest, str(status)]) == 1, f"without {exports[missing]}"


class Refusing:
    def __init__(self) -> None:
        self.full = True
        self.written: list[str] = []
        self.calls = 0

    def append(self, name: str, lines: Sequence[str]) -> None:
        self.calls += 1
        if self.full:
            raise OSError(28, "No space left on device")
        self.written += lines


def test_a_sink_that_is_full_is_tried_again_and_costs_the_oldest_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PAUSE", 0.01)
    monkeypatch.setattr(exporting, "PATIENCE", 0.01)
    monkeypatch.setattr(exporting, "MOST", 3)

    async def scenario() -> None:
        sink, changed = Refusing(), list[Any]()
        exporter = Exporter(sink, changed.append)
        running = asyncio.create_task(exporter.run())
        await exporter.put("a", "a", ["1", "2"])
        await until(lambda: exporter.state("a", "a").why)
        assert changed == ["a"]
        await exporter.put("a", "a", ["3", "4"])
        assert exporter.state("a", "a") == Exported("a", 3, 1, "No space left on device (a)")
        sink.full = False
        await until(lambda: not exporter.state("a", "a").waiting)
        assert sink.written == ["1", "2", "3"]
        assert exporter.state("a", "a") == Exported("a", 0, 1, "")
        exporter.close()
        await running

    run(scenario)


def test_a_sink_that_hangs_holds_up_nobody_and_nothing_is_asked_of_it_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PATIENCE", 0.01)
    monkeypatch.setattr(exporting, "SLOW", 0.02)
    go = threading.Event()

    class Hanging(Refusing):
        def append(self, name: str, lines: Sequence[str]) -> None:
            self.calls += 1
            go.wait()
            self.written += lines

    async def scenario() -> None:
        sink = Hanging()
        exporter = Exporter(sink, lambda key: None)
        running = asyncio.create_task(exporter.run())
        for text in ("1", "2", "3"):
            await exporter.put("a", "a", [text])
        await until(lambda: "not come back" in exporter.state("a", "a").why)
        assert sink.calls == 1
        go.set()
        await until(lambda: not exporter.state("a", "a").waiting)
        assert sorted(sink.written) == ["1", "2", "3"]
        assert exporter.state("a", "a").why == ""
        exporter.close()
        await running

    run(scenario)
