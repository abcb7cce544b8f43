"""What mkdocs is told beside mkdocs.yml: the README and the pages that it links to are pages, at the same addresses.

So links lead somewhere in a checkout, too.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

CHECKOUT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
IMAGES = {".png", ".svg", ".jpg", ".gif", ".webp"}
# Of model cards for the hub, the head is for its machines.
HEAD = re.compile(r"\A---\n.*?\n---\n", flags=re.DOTALL)


# Before mkdocstrings reads its options.
@event_priority(100)
def on_config(config):
    """Lays the package out as it is installed (`conversion/` within), where mkdocstrings reads it without importing."""
    sources = Path(tempfile.mkdtemp(prefix="hf_elmo_docs_"))
    ignored = shutil.ignore_patterns("__pycache__", "pretrained")
    shutil.copytree(CHECKOUT / "hf_elmo", sources / "hf_elmo", ignore=ignored)
    shutil.copytree(CHECKOUT / "conversion", sources / "hf_elmo" / "conversion", ignore=ignored, dirs_exist_ok=True)
    # The walk-through is run without the settings that a person has for notebooks, and without talk about sockets and
    # progress bars.
    profile = sources / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n", encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(profile.parent)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    config.extra["sources"] = str(sources)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(sources)]
    return config


def on_files(files: Files, config) -> Files:
    """Adds the README as the home page, and what the pages of the checkout link to."""
    waiting = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
    for source in (CHECKOUT / "docs").rglob("*.md"):
        waiting += page(source.relative_to(CHECKOUT).as_posix(), source.read_text(encoding="utf-8"))[1]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        source = CHECKOUT / name
        if source.suffix in IMAGES:
            files.append(File.generated(config, name, abs_src_path=str(source)))
            continue
        text, linked = page(name, source.read_text(encoding="utf-8"))
        waiting += linked
        files.append(File.generated(config, site_uri(name), content=text))
    return files


def site_uri(path: str) -> str:
    """Where a file of the checkout is on the site: the README is the home page, pages in `docs/` are at the top."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def page(name: str, text: str) -> tuple[str, list[str]]:
    """The text of a page, in which links lead to pages of the site only, and the files that belong to it."""
    linked = []

    def link(match: re.Match) -> str:
        path = (CHECKOUT / name).parent.joinpath(match[3]).resolve()
        if not path.is_relative_to(CHECKOUT) or not path.is_file():
            return match[0]
        target = path.relative_to(CHECKOUT).as_posix()
        if path.suffix == ".md" or path.suffix in IMAGES:
            if not target.startswith("docs/"):
                linked.append(target)
            return match[0].replace(match[3], relative(site_uri(target), name))
        # Files of the checkout that are not pages.
        return match[2] if match[2].startswith("`") else f"`{target}`"

    return LINK.sub(link, HEAD.sub("", text)), linked


def relative(target: str, page: str) -> str:
    """A page's or picture's address as a link on another page: both within the site."""
    return Path(os.path.relpath(target, Path(page).parent)).as_posix()


def on_page_markdown(markdown: str, page, **_) -> str:
    """Links of pages in `docs/` to files beside that folder, which lead there from a checkout, lead to their pages."""
    source = Path(page.file.abs_src_path or "")
    if not source.is_relative_to(CHECKOUT / "docs"):
        return markdown

    def link(match: re.Match) -> str:
        path = source.parent.joinpath(match[3]).resolve()
        if not path.is_relative_to(CHECKOUT) or path.is_relative_to(CHECKOUT / "docs") or not path.is_file():
            return match[0]
        target = site_uri(path.relative_to(CHECKOUT).as_posix())
        return match[0].replace(match[3], relative(target, page.file.src_uri))

    return LINK.sub(link, markdown)


def on_post_build(config):
    """Removes what `on_config` laid out."""
    shutil.rmtree(config.extra["sources"], ignore_errors=True)
