"""Published models by name: search order, hashes, downloads from a local server."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import http.server
import threading
from pathlib import Path

import jax
import numpy as np
import pooch
import pytest

from phonopy_equivariant.catalogue import cards
from phonopy_equivariant.catalogue.cards import MODELS_VARIABLE, list_models, local_path, model_card
from phonopy_equivariant.checkpoints import converted
from phonopy_equivariant.checkpoints import fetch as fetching
from phonopy_equivariant.checkpoints.conversion import Conversion
from phonopy_equivariant.checkpoints.fetch import remove
from phonopy_equivariant.checkpoints.load import fetch, load_potential, resolve
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.checkpoints.summary import summary_lines
from phonopy_equivariant.errors import PhonopyEquivariantError

NAME = "nequix-mp-1"

# requests leaves its socket to the garbage collector when a download fails halfway; the fixture
# `server` collects it within the test it belongs to
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Return an empty folder of cached models."""
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "phonopy_equivariant" / "models"


class Server(http.server.ThreadingHTTPServer):
    """A server on this computer with one file, counting requests."""

    content = b""
    declared: int | None = None
    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.path != f"/{NAME}.npz":
            self.send_error(404)
            return
        self.send_response(200)
        declared = self.server.declared or len(self.server.content)
        self.send_header("Content-Length", str(declared))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def server(potential, tmp_path, cache, monkeypatch):
    """Serve a small checkpoint under the name of a published model."""
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    path = save_checkpoint(potential, tmp_path / "served.npz", {"name": NAME})
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content = path.read_bytes()
        card = dataclasses.replace(
            model_card(NAME),
            url=f"http://127.0.0.1:{server.server_port}/{NAME}.npz",
            sha256=hashlib.sha256(server.content).hexdigest(),
        )
        monkeypatch.setattr(cards, "_cards", lambda: {NAME: card})
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    gc.collect()


def _message(function, *args) -> str:
    with pytest.raises(PhonopyEquivariantError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cards_are_complete():
    cards = list_models()
    nequix = [card.name for card in cards if card.format == "nequix"]
    assert nequix == ["nequix-mp-1", "nequix-mp-1-pft", "nequix-oam-1-pft"]
    assert len({(card.sha256, card.head) for card in cards}) == len(cards)
    for card in cards:
        assert card == model_card(card.name)
        assert len(card.sha256) == 64
        assert len(card.elements) == len(set(card.elements))
        if card.bundled:  # see test_bundled.py
            continue
        assert card.url.startswith("https://")
        assert all(c.startswith("arXiv:") for c in card.citation)
        assert card.format in ("nequix", "mace", "nequip", "sevennet")
        if "off" in card.name:  # organic molecules
            assert set(card.elements) == {"H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I"}
            continue
        # the 89 elements of the Materials Project
        assert len(card.elements) == 89
        assert {"H", "Bi", "Ac", "Pu"} <= set(card.elements) and not {"Po", "Ra"} & set(
            card.elements
        )


def test_names_of_mace_torch_are_aliases():
    """As ``mace_mp(model=...)`` takes them; no alias is a name, and none stands twice."""
    aliases = [alias for card in list_models() for alias in card.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not {card.name for card in list_models()} & set(aliases)
    for alias, file in (
        ("small", "2023-12-10-mace-128-L0_energy_epoch-249.model"),
        ("medium-0b3", "mace-mp-0b3-medium.model"),
        ("medium-mpa-0", "mace-mpa-0-medium.model"),
    ):
        assert model_card(alias).url.endswith(file)


def test_attribution_is_shown_where_the_licence_asks_for_it():
    for card in list_models():
        lines = summary_lines(card.name)
        assert (card.licence == "CC-BY-4.0") == bool(card.attribution)
        assert card.attribution in "\n".join(lines)
        assert not card.attribution or "doi:" in card.attribution


def test_a_file_of_another_program_is_taken_if_its_hash_is_right(
    conversions, cache, tmp_path, monkeypatch
):
    """mace-torch's cache has names of letters and digits alone."""
    card = model_card(NAME)
    source = cache / f"{NAME}.model"
    theirs = tmp_path / "home" / "mace" / f"{NAME}model".replace("-", "")
    theirs.parent.mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    source.rename(theirs)
    assert fetching.fetch_file(card) == theirs
    theirs.write_bytes(b"another pickle")
    monkeypatch.setattr(fetching, "_download", lambda card: pytest.fail("downloads"))
    with pytest.raises(pytest.fail.Exception, match="downloads"):
        fetching.fetch_file(card)


def test_a_file_under_its_published_name_is_taken_from_the_users_folder(
    conversions, cache, tmp_path, monkeypatch
):
    card = dataclasses.replace(model_card(NAME), url="https://example.org/Model-0.1.nequip.zip")
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, str(folder))
    (cache / f"{NAME}.model").rename(folder / "Model-0.1.nequip.zip")
    assert fetching.fetch_file(card) == folder / "Model-0.1.nequip.zip"


def test_licences_that_forbid_commercial_use_say_so():
    for card in list_models():
        if card.bundled:
            continue
        licence = "CC-BY-4.0" if card.format == "nequip" else "MIT"
        restricted = any(word in card.name for word in ("omat", "matpes", "off"))
        assert card.licence == ("ASL (non-commercial)" if restricted else licence)


def test_an_unknown_name_gives_the_nearest():
    assert "nequix-mp-1-pft" in _message(load_potential, "nequix-mp1-pft")
    message = _message(load_potential, "zzz")
    assert all(card.name in message for card in list_models())


@pytest.mark.parametrize("text", ["absent.nqx", "folder/absent", "./absent", "~/absent.npz"])
def test_a_missing_path_is_a_path_and_no_name(text):
    message = _message(load_potential, text)
    assert text in message and "does not exist" in message


def test_a_folder_is_no_checkpoint(tmp_path):
    assert "is a folder" in _message(load_potential, tmp_path)


def test_an_existing_file_wins_over_a_name(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(b"mine")
    assert resolve(NAME) == Path(NAME)


def test_first_use_downloads_and_later_use_does_not(server, cache):
    assert local_path(NAME) is None
    potential = load_potential(NAME)
    assert potential.name == NAME and potential.sha256 == model_card(NAME).sha256
    assert fetch(NAME) == cache / f"{NAME}.npz" == local_path(NAME)
    assert server.requests == 1
    # nothing is left over from the download
    assert [path.name for path in cache.iterdir()] == [f"{NAME}.npz"]


def test_remove_empties_the_cache(server, cache):
    fetch(NAME)
    assert remove(NAME) and not list(cache.iterdir())
    assert not remove(NAME)
    fetch(NAME)
    assert server.requests == 2


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, cache):
    path = fetch(NAME)
    path.write_bytes(server.content[:-1])
    assert fetch(NAME).read_bytes() == server.content
    assert server.requests == 2


def test_the_folder_of_the_user_comes_first_and_is_checked(server, cache, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, str(folder))
    path = folder / f"{NAME}.npz"
    path.write_bytes(server.content)
    assert resolve(NAME) == path and server.requests == 0
    assert not remove(NAME) and path.exists()
    path.write_bytes(b"something else")
    message = _message(load_potential, NAME)
    assert str(path) in message and "sha256" in message and MODELS_VARIABLE in message
    path.unlink()
    assert fetch(NAME) == cache / f"{NAME}.npz"


def test_a_server_with_another_file_is_refused(server, cache):
    server.content = b"<html>sign in</html>"
    message = _message(load_potential, NAME)
    assert "sha256" in message and model_card(NAME).url in message
    assert not list(cache.iterdir())


def test_a_download_cut_short_leaves_no_file(server, cache):
    server.declared = len(server.content) + 1000
    message = _message(load_potential, NAME)
    assert str(cache / f"{NAME}.npz") in message
    assert not list(cache.iterdir())


def test_without_network_the_error_names_url_cache_and_variable(server, cache, monkeypatch):
    card = model_card(NAME)
    # a port that nobody listens on: the one of a socket just closed
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    offline = dataclasses.replace(card, url=f"http://127.0.0.1:{port}/{NAME}.npz")
    gone = dataclasses.replace(card, url=card.url.replace(NAME, "moved"))
    for broken, reason in ((offline, "no connection"), (gone, "HTTP status 404")):
        monkeypatch.setattr(cards, "_cards", lambda broken=broken: {NAME: broken})
        message = _message(load_potential, NAME)
        # the file keeps the suffix of its URL
        for part in (broken.url, str(cache / f"{NAME}.npz"), MODELS_VARIABLE, reason):
            assert part in message


def test_a_terminal_shows_progress_and_a_pipe_does_not(server, cache, capsys, monkeypatch):
    fetch(NAME)
    assert capsys.readouterr() == ("", "")
    remove(NAME)
    monkeypatch.setattr(fetching.sys.stderr, "isatty", lambda: True)
    fetch(NAME)
    assert NAME in capsys.readouterr().err
    assert fetch(NAME).read_bytes() == server.content


@pytest.fixture
def conversions(potential, cache, monkeypatch) -> list[Path]:
    """Publish a model of mace-torch; return a list that grows with each conversion of it."""
    source = cache / f"{NAME}.model"
    cache.mkdir(parents=True)
    source.write_bytes(b"a pickle")
    card = dataclasses.replace(
        model_card(NAME),
        format="mace",
        url=f"https://example.org/{NAME}.model",
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
    )
    monkeypatch.setattr(cards, "_cards", lambda: {NAME: card})
    made: list[Path] = []

    # what matters here is what becomes of the file
    def convert(source, output, head):
        made.append(save_checkpoint(potential, output, {"name": NAME}))
        return Conversion(made[-1], potential)

    monkeypatch.setattr(converted, "convert", convert)
    return made


def test_a_converted_model_is_checked_each_time(potential, conversions, cache, tmp_path):
    path = fetch(NAME)
    content = path.read_bytes()
    assert load_potential(NAME).sha256 == hashlib.sha256(content).hexdigest()
    assert fetch(NAME) == path == cache / f"{NAME}.npz"
    assert len(conversions) == 1
    doubled = jax.tree.map(lambda x: 2 * np.asarray(x), potential.params)
    other = dataclasses.replace(potential, params=doubled)
    sound = save_checkpoint(other, tmp_path / "other.npz", {"name": NAME}).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damage in (content[:-1], bytes(flipped), sound, b""):
        path.write_bytes(damage)
        assert fetch(NAME).read_bytes() == content
    (cache / f"{NAME}.npz.sha256").unlink()  # a conversion that was interrupted
    fetch(NAME)
    assert len(conversions) == 6
    assert remove(NAME)
    assert list(cache.iterdir()) == []


def test_a_converted_model_in_the_users_folder_needs_its_hash(
    conversions, cache, tmp_path, monkeypatch
):
    made = fetch(NAME)
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, str(folder))
    mine = folder / made.name
    mine.write_bytes(made.read_bytes())
    message = _message(fetch, NAME)
    assert f"{mine}.sha256" in message and "give the file by its path" in message
    (folder / f"{made.name}.sha256").write_bytes((cache / f"{made.name}.sha256").read_bytes())
    assert fetch(NAME) == mine
    mine.write_bytes(mine.read_bytes()[:-1])
    assert str(mine) in _message(fetch, NAME)
    assert len(conversions) == 1
