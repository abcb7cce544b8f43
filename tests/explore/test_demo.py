"""The demo's page in a real browser, its answers against the model's own, and the Space that `hf-elmo space` writes."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from importlib.metadata import requires

import numpy as np
import psutil
import pytest
import torch
from packaging.requirements import Requirement
from typer.testing import CliRunner

import hf_elmo
from hf_elmo.commands.app import app
from hf_elmo.explore.word_comparison import similarities

pytest.importorskip("gradio", reason="gradio is not installed (the extra demo)")
from hf_elmo.explore import demo
from hf_elmo.explore.explorer import MOST_CHARACTERS, MOST_WORDS, Explorer

FIRST, SECOND = "George Bush read it in New York.", "Did they read it?"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def tagger_folder(tiny_model_folder, tmp_path_factory):
    """A tagger whose weights are chance's, but whose tags differ."""
    folder = tmp_path_factory.mktemp("taggers") / "tagger"
    labels = dict(enumerate(["O", "B-place", "I-place", "B-person"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tagger = hf_elmo.ElmoForTokenClassification.from_pretrained(
            tiny_model_folder, id2label=labels, label2id={label: number for number, label in labels.items()}
        )
        with torch.no_grad():
            tagger.classifier.weight.mul_(30)
    tagger.save_pretrained(folder)
    hf_elmo.ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundled():
    folder = hf_elmo.bundled()
    model = hf_elmo.ElmoForPreTraining.from_pretrained(folder).eval()
    return model, hf_elmo.ElmoTokenizer.from_pretrained(folder)


def address_of(process):
    """Where a process listens; None if it does not yet."""
    connections = psutil.Process(process.pid).net_connections(kind="tcp4")
    ports = [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]
    return f"http://127.0.0.1:{ports[0]}/" if ports else None


@contextmanager
def serving(arguments, **options):
    """A process that serves the page at a port that it finds, and its address, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    try:
        for _ in range(480):
            assert process.poll() is None, process.stdout.read()
            if address := address_of(process):
                with suppress(OSError):
                    urllib.request.urlopen(address, timeout=10).close()
                    break
            time.sleep(0.25)
        else:
            pytest.fail("the page did not come up")
        yield process, address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture(scope="module")
def address(tagger_folder):
    with serving(["-m", "hf_elmo", "demo", "--ner", tagger_folder, "--no-browser"]) as (process, address):
        yield address
    assert address in process.stdout.readline()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the extra browser)")
    browser, server = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and server):
        pytest.skip("chromium and chromedriver (Debian: chromium, chromium-driver) are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With both paths given, selenium has nothing to look for or to download.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(server))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, address):
    """The page, freshly loaded; at the end nothing has gone wrong in it, and nothing has been asked elsewhere."""
    driver.get("about:blank")
    resize(driver, 1280, 900)
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(address)
    until(lambda: result(driver) and find(driver, "#first textarea"))
    yield driver
    problems = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert problems == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert len(urls) > 1
    assert [url for url in urls if not url.startswith((address, "data:", "blob:", "about:"))] == []


def resize(driver, width, height):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def find(driver, selector):
    return driver.find_elements("css selector", selector)


def result(driver):
    return driver.execute_script("return document.querySelector('#result .elmo')?.innerText || ''")


def until(condition, seconds=20):
    """The condition's value, when it has one."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not change as expected"
        time.sleep(0.05)
    return value


def write(driver, name, text):
    box = find(driver, f"#{name} textarea")[0]
    box.clear()
    box.send_keys(text)


def choices(driver, name):
    script = "return [...document.querySelectorAll(arguments[0])].map(label => label.innerText.trim())"
    return driver.execute_script(script, f"#{name} label:has(input)")


def compare(driver, first, second, expected):
    """Types two sentences and compares them, by mouse, until the expected text is shown."""
    assert expected not in result(driver)
    write(driver, "first", first)
    write(driver, "second", second)
    find(driver, "#compare")[0].click()
    until(lambda: expected in result(driver))


def cosines_shown(driver):
    section = "#result section:first-of-type .number"
    script = "return [...document.querySelectorAll(arguments[0])].map(cell => Number(cell.textContent))"
    return driver.execute_script(script, section)


def expected_cosines(bundled, places):
    found = similarities(*bundled, FIRST, SECOND)
    return pytest.approx([*found.layers[:, places[0], places[1]], found.mix[places]], abs=0.0051)


def test_two_sentences_and_a_word(page, bundled, tagger_folder):
    model, tokenizer = bundled
    first, second = tokenizer.tokenize(FIRST), tokenizer.tokenize(SECOND)
    compare(page, FIRST, SECOND, "Bush")
    until(lambda: choices(page, "first-word") == first)
    assert choices(page, "second-word") == second
    # The longest word of both begins.
    assert cosines_shown(page) == expected_cosines(bundled, (first.index("read"), second.index("read")))

    found = similarities(model, tokenizer, first, second)
    for table, matrix in zip(find(page, "#result .map"), [*found.layers, found.mix], strict=True):
        cells = page.execute_script(
            "return [...arguments[0].querySelectorAll('tbody td')].map(c => c.innerText)", table
        )
        assert [float(cell) for cell in cells] == pytest.approx(matrix.ravel().tolist(), abs=0.0051)

    place = first.index("Bush")
    find(page, "#first-word label:has(input)")[place].click()
    until(lambda: "Bush in the first and read in the second" in result(page))
    assert cosines_shown(page) == expected_cosines(bundled, (place, second.index("read")))
    fitting = hf_elmo.substitutes(model, tokenizer, first, 6, word_index=place, is_split_into_words=True)
    text = result(page)
    section = text[text.index("What would fit") :]
    assert re.findall(r"(\S+)\s+([\d.]+) %", section)[:6] == [
        (each["token_str"], f"{100 * each['score']:.1f}") for each in fitting
    ]
    tagger = hf_elmo.ElmoForTokenClassification.from_pretrained(tagger_folder).eval()
    spans = (
        "return [...document.querySelectorAll('.tagged')].map("
        "e => [...e.querySelectorAll('small')].map(s => s.innerText))"
    )
    expected = []
    for words in (first, second):
        tags = tagger.decode(**tokenizer([words], is_split_into_words=True, return_tensors="pt"))[0]
        expected.append(["" if tag == 0 else tagger.config.id2label[tag] for tag in tags])
    assert page.execute_script(spans) == expected
    assert len({tag for row in expected for tag in row}) > 1


def test_examples_type_themselves(page):
    find(page, "#example-bank")[0].click()
    until(lambda: "instead of bank, sentence 1" in result(page))
    assert find(page, "#first textarea")[0].get_attribute("value") == "She sat on the bank of the river."
    assert choices(page, "second-word")[-1] == "."


def test_the_keyboard_reaches_everything(page):
    from selenium.webdriver import ActionChains, Keys

    reached = []
    for _ in range(60):
        ActionChains(page).send_keys(Keys.TAB).perform()
        where = page.execute_script(
            "const e = document.activeElement, b = e.closest('#first, #second, #first-word, #second-word');"
            "return e.getAttribute('role') === 'region' ? 'map' : b ? b.id : e.id"
        )
        if not reached or reached[-1] != where:
            reached.append(where)
        if reached.count("map") and where != "map":
            break
    examples = ["example-read", "example-bank", "example-left"]
    assert reached[:8] == ["first", "second", "compare", *examples, "first-word", "second-word"]
    assert reached[8] == "map"

    box = find(page, "#second textarea")[0]
    box.clear()
    box.send_keys("We read books.", Keys.ENTER)
    until(lambda: choices(page, "second-word") == ["We", "read", "books", "."])
    find(page, "#second-word input")[2].send_keys(Keys.SPACE)
    until(lambda: "read in the first and books in the second" in result(page))


@pytest.mark.parametrize("width", [1280, 375])
def test_no_scrolling_sideways_and_screenshots_that_show_something(page, width, tmp_path):
    resize(page, width, 900)
    compare(page, "word " * 20 + "x" * 100, FIRST, "xxxx…xxxx")
    until(lambda: len(choices(page, "first-word")) == 21)
    sizes = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    until(lambda: len(set(page.execute_script(sizes))) == 1)
    for name in ("first", "second", "compare", "first-word", "second-word", "result"):
        box = find(page, f"#{name}")[0].rect
        assert box["x"] >= 0
        assert 200 < box["width"] <= width or name == "compare"
        assert box["x"] + box["width"] <= width
    page.save_screenshot(str(tmp_path / "page.png"))
    pillow = pytest.importorskip("PIL.Image")
    image = np.asarray(pillow.open(tmp_path / "page.png").convert("RGB"))
    assert image.shape[1] == width
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 30


def test_what_is_typed_is_shown_and_not_run(page):
    compare(page, "<img src=x onerror=alert(1)> ${1+1} {{value}} @children `x`", "He said <b>no</b> \\u0041", "onerror")
    until(lambda: "<b" in "".join(choices(page, "second-word")) or "<" in choices(page, "second-word"))
    headers = "return [...document.querySelectorAll('.map')][0].innerText"
    shown = page.execute_script(headers)
    assert "onerror" in shown
    assert "value" in shown
    assert find(page, "#result img") == []
    assert find(page, "#result .map b") == []


def test_too_long_or_empty_texts_get_a_message(page):
    long = f"first sentence has {MOST_CHARACTERS + 1} characters, but at most {MOST_CHARACTERS}"
    compare(page, "a" * (MOST_CHARACTERS + 1), "b", long)
    assert choices(page, "first-word") == []
    compare(page, "a", "b " * (MOST_WORDS + 1), f"second sentence has {MOST_WORDS + 1} words, but at most {MOST_WORDS}")
    compare(page, "   ", "b", "first sentence is empty")
    compare(page, FIRST, SECOND, "How it moves")


def test_it_listens_to_this_machine_alone(address):
    """127.0.0.2 is this machine, too, but not the address that was bound: a server for all would answer there."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has all of 127.0.0.0/8 without being told")
    port = int(address.rsplit(":", 1)[1].strip("/"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0
    done = CliRunner().invoke(app, ["demo", "--port", str(port), "--no-browser"])
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert str(port) in done.output


def test_other_names_and_uploads_are_refused(address):
    """A page elsewhere may lead its own name here (DNS rebinding); and the page itself uploads nothing."""

    def status(path, body=None, **headers):
        try:
            return urllib.request.urlopen(urllib.request.Request(f"{address}{path}", body, headers)).status
        except urllib.error.HTTPError as error:
            return error.code

    assert status("config") == 200
    assert status("config", Host="evil.example") == 400
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\na\r\n--x--\r\n'
    assert status("gradio_api/upload", body, **boundary) == 404


def test_senseless_requests_get_no_trace_of_the_program(address):
    config = json.load(urllib.request.urlopen(f"{address}config"))
    assert config["analytics_enabled"] is False
    event = {"session_hash": "x", "event_data": None, "trigger_id": None}
    for number, data in [(0, [1, {"a": 2}]), (0, []), (0, ["a" * 10**6, "b"]), (999, []), (4, [[], 0, 0]), (None, 5)]:
        body = json.dumps({**event, "fn_index": number, "data": data}).encode()
        request = urllib.request.Request(
            f"{address}gradio_api/queue/join", body, headers={"Content-Type": "application/json"}
        )
        try:
            answers = [urllib.request.urlopen(request).read()]
            answers += [urllib.request.urlopen(f"{address}gradio_api/queue/data?session_hash=x", timeout=20).read()]
        except urllib.error.HTTPError as error:
            answers = [error.read()]
        for answer in answers:
            assert b"Traceback" not in answer
            assert b".py" not in answer


# --- without a browser


@pytest.fixture(scope="module")
def explorer(tiny_model_folder):
    model = hf_elmo.ElmoModel.from_pretrained(tiny_model_folder).eval()
    tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(tiny_model_folder)
    return Explorer(model, tokenizer, examples=["They read it now.", "The end!"])


def test_neighbours_in_context(explorer):
    """Against vectors of plain calls; the word itself and marks are left out."""
    first, second = ["I", "read", "it", "."], ["we", "read"]
    found = explorer.explore(first, second, (1, 1), count=20)
    assert found.substitutes is None
    assert found.tags is None
    assert found.neighbours[0][0] == []
    sentences = [first, second, ["They", "read", "it", "now", "."], ["The", "end", "!"]]
    vectors = {}
    for number, words in enumerate(sentences):
        inputs = explorer.tokenizer([words], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            output = explorer.model(**inputs, output_hidden_states=True)
        for place, word in enumerate(words):
            if word not in (".", "!"):
                layers = [*output.hidden_states, output.last_hidden_state]
                vectors[number, place] = [layer[0, place + 1].double().numpy() for layer in layers]
    for layer in (1, 2, 3):
        own = vectors[0, 1][layer]
        cosines = {
            (sentences[number][place], tuple(sentences[number])): own
            @ each[layer]
            / np.linalg.norm(own)
            / np.linalg.norm(each[layer])
            for (number, place), each in vectors.items()
            if (number, place) != (0, 1)
        }
        near = found.neighbours[0][layer]
        assert {(each.word, tuple(each.sentence)) for each in near} == set(cosines)
        assert [each.cosine for each in near] == sorted((each.cosine for each in near), reverse=True)
        for each in near:
            assert each.sentence[each.place] == each.word
            assert each.cosine == pytest.approx(cosines[each.word, tuple(each.sentence)], abs=1e-5)


def test_neighbours_in_the_vocabulary(bundled):
    model, tokenizer = bundled
    explorer = Explorer(model, tokenizer, examples=[], most_vocabulary=300)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)[4:304]
    near = explorer.explore(["the", "end"], ["these"], (0, 0)).neighbours[0][0]
    inputs = tokenizer([[word] for word in ["the", *words]], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        vectors = model.elmo(**inputs, output_hidden_states=True).hidden_states[0][:, 1].double().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = {word: cosine for word, cosine in zip(words, unit[1:] @ unit[0], strict=True) if word != "the"}
    assert [each.word for each in near] == sorted(cosines, key=cosines.get, reverse=True)[:6]
    assert near[0].cosine == pytest.approx(max(cosines.values()), abs=1e-5)


@pytest.mark.parametrize("places", [(9, 0), (0, -1), (None, 0), (0, True), ("0", 0)])
def test_places_that_are_none_are_refused(explorer, places):
    with pytest.raises(ValueError, match="no such word in the"):
        explorer.explore(["a", "b"], ["c", "d"], places)


@pytest.mark.parametrize("error", [ZeroDivisionError("inside"), ValueError("inside"), KeyError("inside")])
def test_an_error_inside_is_logged_and_not_shown(explorer, monkeypatch, caplog, error):
    """Libraries raise errors of every kind, also of the kind that the project's own messages are."""

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(explorer, "explore", fail)
    for answer in (lambda: demo._compare(explorer, "a b", "a c")[-1], lambda: demo._pick(explorer, ["a b", "c"], 0, 0)):
        caplog.clear()
        shown = answer()
        assert "Something went wrong" in shown
        assert "inside" not in shown
        assert type(error).__name__ in caplog.text


def test_what_a_visitor_did_wrong_is_shown_and_not_logged(explorer, caplog):
    assert "pick one of its words" in demo._pick(explorer, ["a b", "c"], 0, 1)
    assert "type two sentences" in demo._pick(explorer, [], 0, 0)
    assert "The first sentence is empty" in demo._compare(explorer, " ", "a")[-1]
    assert [record for record in caplog.records if record.name == demo.logger.name] == []


def test_text_that_is_no_unicode_does_not_show_a_codec(explorer):
    """Half a surrogate pair, which JSON can carry."""
    shown = demo._compare(explorer, "a \ud800 b", "a c")[-1]
    assert "codec" not in shown
    assert "surrogate" not in shown


# --- the Space


def assert_brings_the_demo(requirement):
    """That pip installs this version of the package with it, and what `app.py` imports."""
    assert requirement.name == "hf_elmo"
    assert requirement.specifier.contains(hf_elmo.__version__, prereleases=True)
    assert not requirement.specifier.contains("999")
    for module in ("gradio", "torch", "transformers"):
        of_module = [each for each in map(Requirement, requires("hf_elmo")) if each.name == module]
        extras = ["", *requirement.extras]
        assert any(not each.marker or each.marker.evaluate({"extra": extra}) for each in of_module for extra in extras)


def test_a_space_runs(tiny_model_folder, tagger_folder, tmp_path):
    from huggingface_hub import SpaceCard

    title = 'Words: "there" & here'
    arguments = ["space", str(tmp_path / "out"), "-m", str(tiny_model_folder), "--ner", str(tagger_folder)]
    done = CliRunner().invoke(app, [*arguments, "--title", title])
    assert done.exit_code == 0, done.output
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    weights = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    expected = {".gitattributes", "README.md", "app.py", "requirements.txt"}
    assert files == expected | {f"{folder}/{name}" for folder in ("model", "tagger") for name in weights}
    card = SpaceCard.load(tmp_path / "out" / "README.md").data
    assert (card.sdk, card.app_file, card.title) == ("gradio", "app.py", title)
    assert card.sdk_version == sys.modules["gradio"].__version__
    assert "package index" in done.stderr
    (line,) = (tmp_path / "out" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert_brings_the_demo(Requirement(line))
    # Somewhere else, where the copied models alone can be meant.
    shutil.move(tmp_path / "out", tmp_path / "space")
    with serving(["app.py"], cwd=tmp_path / "space") as (_, address):
        text = urllib.request.urlopen(address).read().decode()
    assert demo.TITLE in text
    # The result of the first example, with the tags of the tagger.
    assert "Nearest neighbours" in text
    assert "What the tagger says" in text


def test_a_space_of_the_bundled_model_holds_no_copy(tmp_path):
    done = CliRunner().invoke(app, ["space", str(tmp_path / "s"), "--requirement", "hf_elmo @ file:///somewhere"])
    assert done.exit_code == 0, done.output
    assert "package index" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["README.md", "app.py", "requirements.txt"]
    assert (tmp_path / "s/requirements.txt").read_text(encoding="utf-8") == "hf_elmo @ file:///somewhere\n"
    code = (tmp_path / "s/app.py").read_text(encoding="utf-8")
    compile(code, "app.py", "exec")
    assert "load_explorer(None, None)" in code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--title", "x" * 61], "at most 60 characters"),
        (["--requirement", "a\nb"], "one line"),
        (["--model", "gone"], "no model folder gone"),
        (["--ner", hf_elmo.bundled()], "does not hold a tagger of words"),
    ],
)
def test_a_space_that_cannot_be_leaves_nothing(tmp_path, options, message):
    done = CliRunner().invoke(app, ["space", str(tmp_path / "s"), *options])
    assert done.exit_code == 1
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_space_does_not_overwrite(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    done = CliRunner().invoke(app, ["space", str(tmp_path)])
    assert done.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
