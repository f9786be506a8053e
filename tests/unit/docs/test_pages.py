"""What the pages name exists: links and their headings, files, make targets, modules, settings, reasons; and whatever
resource they show is one that the API takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import yaml
from pydantic import AliasChoices, BaseModel

from fiduciary.api.crd import KINDS
from fiduciary.settings import ENVIRONMENT, PREFIX, Settings

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    ROOT / "CONTRIBUTING.md",
    *(ROOT / name / "README.md" for name in (".", "sandbox", "deploy/samples")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
SAMPLES = sorted((ROOT / "deploy" / "samples").glob("*.yaml"))
TYPES = {kind.__name__: kind for kind in KINDS}
#: Written by a run, so that no checkout has it.
MADE = ("bench/results",)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in lines)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in plain}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    dead: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        file, _, anchor = target.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and anchor not in headings(there.read_text())):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("name", TEXTS)
def test_files_modules_and_make_targets_exist(name: str) -> None:
    text = TEXTS[name]
    missing: list[str] = []
    for path in re.findall(r"`((?:bench|crds|deploy|docs|operator|sandbox|tests|trainer_image)/[\w./*-]+)`", text):
        if not path.startswith(MADE) and not list(ROOT.glob(path.rstrip("/"))):
            missing.append(path)
    for module in re.findall(r"python3? -m ([\w.]+)", text):
        path = module.replace(".", "/")
        roots = (ROOT, ROOT / "operator", ROOT / "trainer_image")
        if module not in ("pip", "pytest") and not any(
            (root / (path + end)).exists() for root in roots for end in (".py", "/__main__.py")
        ):
            missing.append(f"python -m {module}")
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^\$ )make ([a-z0-9-]+)", text, re.MULTILINE)
    missing += [f"make {target}" for target in named if target not in targets]
    assert missing == []


def test_variables_of_the_operator_are_ones_that_it_takes() -> None:
    """Those of its Deployment, in docs and manifests; others of that prefix belong to pods, tests and the sandbox."""
    known = {PREFIX + name.upper() for name in ENVIRONMENT} | {PREFIX + "CONFIG", PREFIX + "LEASE"}
    text = TEXTS["docs/install.md"]
    assert set(re.findall(r"\{name: (FIDUCIARY_\w+)", text)) <= known
    (listed,) = re.findall(r"`FIDUCIARY_` and (.*?)\. One that", text, re.DOTALL)
    assert {PREFIX + word for word in re.findall(r"`([A-Z_]+)`", listed)} == known - {PREFIX + "CONFIG"}


def keys(model: type[BaseModel]) -> set[str]:
    """Names of all settings, as the file has them."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(str(field.validation_alias.choices[0]) if isinstance(field.validation_alias, AliasChoices) else name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys(kind)
    return found


def test_every_setting_is_explained() -> None:
    """In the installation guide, or as a comment of the file that overlays replace."""
    explained = TEXTS["docs/install.md"] + (ROOT / "deploy/kustomize/operator/config.yaml").read_text()
    words = set(re.findall(r"\w+", explained))
    own = {"namespace", "identity"}  # which the Deployment fills in
    assert sorted(keys(Settings) - words - own) == []


def resources(text: str) -> list[dict[str, Any]]:
    """Objects of ours that a page shows: in blocks of YAML, and in what is piped to kubectl."""
    blocks = re.findall(r"^```ya?ml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"<<EOF\n(.*?)^EOF$", text, re.MULTILINE | re.DOTALL)
    # BaseLoader: kubectl reads 2017-12-29 as text, too.
    found: list[Any] = [item for block in blocks for item in yaml.load_all(block, yaml.BaseLoader)]
    objects = [cast("dict[str, Any]", item) for item in found if isinstance(item, dict)]
    return [item for item in objects if item.get("apiVersion") == "fiduciary.dev/v1alpha1"]


SHOWN = [(name, body) for name, text in TEXTS.items() for body in resources(text)]


def test_pages_show_resources() -> None:
    assert {body["kind"] for _, body in SHOWN} >= {"FinancialModel", "DriftPolicy", "ModelApproval"}


@pytest.mark.parametrize(("name", "body"), SHOWN, ids=[f"{name}-{body['kind']}" for name, body in SHOWN])
def test_what_a_page_shows_can_be_applied(name: str, body: dict[str, Any]) -> None:
    """With two liberties: the server makes a name of generateName, and a digest is shown by its first letters."""
    metadata = dict(body["metadata"])
    metadata.setdefault("name", metadata.pop("generateName", "") + "x")
    spec = {
        key: "sha256:" + "0" * 64 if isinstance(value, str) and value.endswith("…") else value
        for key, value in body["spec"].items()
    }
    TYPES[body["kind"]].model_validate({**body, "metadata": metadata, "spec": spec})


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_explained_and_valid(sample: Path) -> None:
    assert sample.read_text().startswith("# "), "say what it is for and what it needs"
    for body in yaml.safe_load_all(sample.read_text()):
        if body["apiVersion"] == "fiduciary.dev/v1alpha1":
            TYPES[body["kind"]].model_validate(body)


def test_every_sample_is_named_on_a_page() -> None:
    everything = "\n".join(TEXTS.values())
    assert [sample.name for sample in SAMPLES if f"deploy/samples/{sample.name}" not in everything] == []
