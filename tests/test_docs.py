"""The documentation site: it builds without a warning, says all that is public, and needs nothing from elsewhere."""

import html
import os
import re
import subprocess
import sys

import pytest
from places import CHECKOUT

import hf_elmo
import hf_elmo.conversion

# What the tables of the README and the like may point to, but no page may load.
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?:[^\">]+)|<link[^>]*stylesheet[^>]*href=\"?(https?:[^\">]+)"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHECKOUT / "mkdocs.yml").is_file(), reason="only a checkout has the documentation"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as in CI; the walk-through is run for it."""
    for name in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter", "matplotlib"):
        pytest.importorskip(name, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=CHECKOUT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=500, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert not re.search("warning|error", said, flags=re.IGNORECASE), said
    return folder


def test_everything_public_is_documented(site):
    from mkdocstrings import Inventory

    with (site / "objects.inv").open("rb") as file:
        documented = set(Inventory.parse_sphinx(file))
    expected = {f"hf_elmo.{name}" for name in hf_elmo.__all__}
    expected |= {f"hf_elmo.conversion.{name}" for name in hf_elmo.conversion.__all__}
    assert expected <= documented
    assert "hf_elmo.model.modeling_elmo.ElmoModel.forward" in documented


def test_pages_of_the_checkout(site):
    home = html.unescape((site / "index.html").read_text(encoding="utf-8"))
    assert "ELMo, at home in the Hugging Face ecosystem." in home
    assert 'href="conversion/SOURCES/"' in home
    assert 'href="model_cards/elmo-mini/"' in home
    card = (site / "model_cards" / "elmo-mini" / "index.html").read_text(encoding="utf-8")
    assert "pipeline_tag" not in card
    formats = (site / "reference" / "conversion" / "index.html").read_text(encoding="utf-8")
    assert 'href="../../conversion/SOURCES/"' in formats


def test_links_of_pages_lead_somewhere_in_a_checkout_too():
    links = [
        (page, target)
        for page in (CHECKOUT / "docs").rglob("*.md")
        for target in re.findall(r"\]\(([^)#:\s]+)[)#]", page.read_text(encoding="utf-8"))
    ]
    assert len(links) >= 1
    assert [(page.name, target) for page, target in links if not (page.parent / target).is_file()] == []


def test_the_walk_through_was_run(site):
    page = (site / "the_read_example" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 6
    layers, dim = hf_elmo.ElmoConfig.from_pretrained(hf_elmo.bundled()).num_layers + 1, 384
    assert f"vectors of read: ({layers}, 32, {dim}) (layers, sentences, dim)" in page
    assert "read and read: 1.000, 0." in page
    # Nothing is said beside: no warnings, no progress, no paths of the machine.
    assert not re.search(r"<[^>]*application/vnd\.jupyter\.stderr", page)
    assert "site-packages" not in page


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        assert LOADED.findall(page.read_text(encoding="utf-8")) == [], page.name
