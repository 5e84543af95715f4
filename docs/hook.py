"""The hook of mkdocs.yml: adds generated pages, drawings, and files of the repository.

Pages link to files of the repository as on any disk. Those that are linked become pages of the
site, so that no link leaves it for an address that may move.
"""

import os
import re
import zlib
from pathlib import Path

import generated
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REPOSITORY = "repository/"  # where files from outside of docs/ are on the site
LINK = re.compile(r"(\]\()(<[^>:]+>|[^)\s#:<]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".py": "python", ".sh": "sh", ".cfg": "ini", ".toml": "toml", ".yml": "yaml"}
LANGUAGES |= {".json": "json", ".jsonl": "json"}
SHIM = "https://unpkg.com/iframe-worker/shim"
MATHJAX = re.compile(r"<script data-mkdocs-jupyter-mathjax.*?</script>", re.S)
LONGEST = 200_000  # letters of a file that becomes a page; of others the beginning


def on_files(files: Files, config) -> Files:
    """Adds the generated pages, and files of the repository that a page links to."""
    pages = generated.pages()
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    wanted = [page.src_uri for page in files.documentation_pages()]
    seen = set(wanted)
    while wanted:
        uri = wanted.pop()
        if uri.endswith(".ipynb"):
            continue
        text = pages.get(uri) or _source(uri).read_text(encoding="utf-8")
        for _, link, _ in LINK.findall(text):
            path = _linked(uri, link)
            if path is None or path.is_relative_to(DOCS) or _uri(path) in seen:
                continue
            other = _uri(path)
            seen.add(other)
            if path.suffix == ".md":
                wanted.append(other)
            if other.endswith(".md"):
                files.append(File.generated(config, other, content=_shown(path)))
            else:
                files.append(File.generated(config, other, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Draws what a page asks for and sends its links to the pages of the site."""
    uri = page.file.src_uri
    if uri.startswith(REPOSITORY) and _source(uri).suffix != ".md":
        page.meta["search"] = {"exclude": True}  # code would stand before every page
        return markdown
    markdown = re.sub(r"<!-- step_of: (.*?) -->", lambda m: generated.step_of(m[1]), markdown)
    markdown = re.sub(r"<!-- floors -->", lambda _: generated.floors(), markdown)

    def site(match: re.Match) -> str:
        path = _linked(uri, match[2])
        if path is None:
            return match[0]
        return f"{match[1]}<{os.path.relpath(_uri(path), Path(uri).parent)}{match[3][:-1]}>)"

    return LINK.sub(site, markdown)


def on_page_content(html: str, page, config, files) -> str:
    """Sends the links of a notebook, which stays as it is on disk, to the pages of the site."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="((?!\w+:)[^"#]+)\.md((?:#[^"]*)?)"', r'href="\1.html\2"', html)


def on_post_page(output: str, page, config) -> str:
    """Asks no other server: search by our own worker, and no MathJax, which no page needs."""
    output = output.replace(SHIM, os.path.relpath("worker.js", Path(page.url).parent))
    output = MATHJAX.sub("", output)
    if found := re.search(r"<script[^>]* src=.?https?:[^>]*>", output):
        raise PluginError(f"{page.file.src_uri} asks another server: {found[0]}")
    return output


def on_post_template(output: str, template_name: str, config) -> str:
    """The same of what is no page: 404.html, whose place is not known."""
    return MATHJAX.sub("", output.replace(SHIM, "/worker.js"))


def on_post_build(config) -> None:
    """Fails unless every public name has its place on the site."""
    head, _, _, _, data = (Path(config.site_dir) / "objects.inv").read_bytes().split(b"\n", 4)
    assert head == b"# Sphinx inventory version 2", head
    there = {line.split()[0] for line in zlib.decompress(data).decode().splitlines() if line}
    modules = [module for _, found in generated.PUBLIC.values() for module in found]
    wanted = {generated.place(m, name) for m in modules for name in generated.documented(m)}
    if missing := sorted(wanted - there):
        raise PluginError(f"public names without docs: {', '.join(missing)}")


def _linked(uri: str, link: str) -> Path | None:
    """The file of the repository that a page's link means; None for what is none."""
    path = (_source(uri).parent / link.strip("<>")).resolve()
    return path if path.is_file() and path.is_relative_to(ROOT) else None


def _source(uri: str) -> Path:
    """The file of the repository that a page of the site is."""
    if not uri.startswith(REPOSITORY):
        return DOCS / uri
    path = ROOT / uri.removeprefix(REPOSITORY)
    return path if path.is_file() else path.with_suffix("")


def _uri(path: Path) -> str:
    """The page of the site that a file of the repository is; code gets one, pictures do not."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    uri = REPOSITORY + path.relative_to(ROOT).as_posix()
    return uri + ".md" if path.suffix in LANGUAGES or not path.suffix else uri


def _shown(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    title = path.relative_to(ROOT).as_posix()
    return f"# {title}\n\n~~~~{LANGUAGES.get(path.suffix, 'text')}\n{text[:LONGEST]}\n~~~~\n"
