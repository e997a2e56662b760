"""The page in a browser: what is filtered and searched, what stays text, and that it asks nothing of a network."""

from pathlib import Path
from typing import Any

from dareu.report.page import write_page

EVIL = '</p><script>window.hit = 1</script><img src="https://example.org/x" onerror="window.hit = 1">'

#: `changed(action)`: runs an action of the form and waits for the count that it leads to.
CHANGED = """
const changed = (action) => new Promise((resolve) => {
  const count = document.getElementById("count");
  new MutationObserver(() => resolve(count.textContent)).observe(count, {childList: true});
  action();
});
const set = (id, value) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
};
const option = (id, text) =>
  [...document.getElementById(id).options].find((each) => each.textContent.includes(text)).value;
"""
SHOWN = '[...document.querySelectorAll("#rows > li:not([hidden]) .who bdi")].map((each) => each.textContent).join()'


def test_rows_are_filtered_and_searched_and_scripts_stay_text(browser: Any, runs: Path, measured: Any) -> None:
    answers = [EVIL, "في ميناء", "Ｓplit 東京 İzmir", "A smith."]
    measured(runs / "dareu", answers, {"fact_recall": 0.1, "forget_rouge": 0.5, "retain_rouge": 0.9})
    page = runs / "report.html"
    write_page(page, [runs / "dareu"])
    browser.open(page)
    browser.run(CHANGED)

    assert browser.run("document.getElementById('count').textContent") == "4 rows"
    assert browser.run("changed(() => set('owner', option('owner', 'Bo Birch')))") == "1 of 4 rows"
    assert browser.run(SHOWN) == "Bo Birch"
    assert browser.run("changed(() => document.querySelector('button[type=reset]').click())") == "4 rows"
    assert browser.run("changed(() => set('split', option('split', 'forget')))") == "2 of 4 rows"
    assert browser.run("changed(() => set('kind', 'told'))") == "0 of 4 rows"
    assert browser.run("changed(() => set('kind', 'silent'))") == "2 of 4 rows"
    browser.run("changed(() => document.querySelector('button[type=reset]').click())")
    for words, hits in (("split 東京", "1 of 4"), ("ميناء", "1 of 4"), ("window.hit", "1 of 4"), ("nowhere", "0 of 4")):
        assert browser.run(f"changed(() => set('search', {words!r}))") == f"{hits} rows"

    assert browser.run("typeof window.hit") == "undefined"
    assert browser.run("document.querySelectorAll('#rows script, #rows img').length") == 0
    assert browser.run(f"document.body.textContent.includes({EVIL!r})")
    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    told = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert not [event for event in browser.events if event["method"] in told]


def test_five_thousand_rows_are_in_one_page_and_only_what_is_seen_is_laid_out(
    browser: Any, runs: Path, measured: Any
) -> None:
    rows = [
        {"split": "forget", "owner": f"Owner {n // 20}", "prompt": f"Q: What is number {n}?\nA:", "facts": [str(n)]}
        for n in range(5000)
    ]
    measured(runs / "dareu", [f"It is {n}." for n in range(5000)], {"fact_recall": 0.1}, rows)
    page = runs / "report.html"
    write_page(page, [runs / "dareu"])
    assert page.stat().st_size < 10_000_000
    browser.open(page)
    browser.run(CHANGED)
    assert browser.run("changed(() => set('search', '4999'))") == "1 of 5,000 rows"
    assert browser.run("changed(() => set('search', ''))") == "5,000 rows"
    # A row far below is as high as the page guesses, for it was not laid out
    heights = "new Set([...document.querySelectorAll('#rows > li')].slice(2000).map((row) => row.offsetHeight)).size"
    assert browser.run(heights) == 1
