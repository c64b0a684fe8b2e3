"""README, CONTRIBUTING and docs/: links lead somewhere, and files, modules and commands that are named exist."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^( {4}[^\n]*|```.*?^```)$", re.MULTILINE | re.DOTALL)
FOLDERS = "benchmarks|deploy|distill|docs|edgedistill|examples|student|teacher|tests"
PATHS = re.compile(rf"`((?:{FOLDERS})/(?:[\w./-]*(?:/|\.\w+))?)`")
NAMES = re.compile(r"`((?:deploy|distill|edgedistill|student|teacher)(?:\.\w+)+)`")


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """The links of a page to files or headings that do not exist; those of the web are not followed."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    return broken


def defined(name: str) -> bool:
    """Whether a dotted name is a module, or is assigned, defined or imported at the top of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if file.exists():
            rest = parts[end:]
            pattern = (
                rf"^\s*(?:def|class|import) {rest[0]}\b|^{rest[0]}\b|\bimport .*\b{rest[0]}\b" if rest else ""
            )
            return re.search(pattern, file.read_text(), re.MULTILINE) is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_in_the_text_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    assert [path for path in PATHS.findall(text) if not (ROOT / path).exists()] == []
    assert [name for name in NAMES.findall(text) if not defined(name)] == []


def test_the_checks_find_what_is_broken(tmp_path: Path):
    page = tmp_path / "page.md"
    links = "[x](none.md) [y](#a-title-quoted) [z](page.md#no) [web](https://none.example)"
    page.write_text(f"# A title, `quoted`\n{links}\n\n    [code](no)\n\n{links}\n")
    assert broken_links(page) == ["none.md", "page.md#no"] * 2
    assert defined("deploy.load")
    assert defined("deploy.errors.UserError")
    assert not defined("deploy.errors.Nothing")
    assert not defined("deploy.nothing")


def test_where_is_answers_with_files():
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## Where is …?")[1].split("\n## ")[0]
    answers = re.findall(r"^\| (.+?) +\| (.+?) +\|$", table, re.MULTILINE)[2:]
    assert len(answers) >= 20
    assert [question for question, answer in answers if not PATHS.search(answer)] == []


@pytest.mark.parametrize("package", ["deploy", "distill"])
def test_the_map_of_the_code_has_every_folder(package: str):
    text = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders - set(re.findall(r"\b(\w+)/", text)) == set()


def test_old_spellings_of_commands_are_gone():
    old = re.compile(r"python (?:distill/run\.py|deploy/build_engine\.py|-m deploy) +[a-zA-Z]")
    assert [page.name for page in PAGES for line in page.read_text().splitlines() if old.search(line)] == [
        "deploy.md"
    ]
