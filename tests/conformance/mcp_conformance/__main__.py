# SPDX-License-Identifier: AGPL-3.0-or-later
"""`./dev conformance`: run legs of the official suites, show a table, say whether all is as it should be."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import Greenroom, started

from mcp_conformance.legs import LEGS, Leg, run_leg
from mcp_conformance.suites import NotToBeHadError, Suites, fetched
from mcp_conformance.verdict import Expected, Results, complaints, problems, table

FIXTURE = Path(__file__).resolve().parent.parent / "fixture"
CANT_BE_HAD = 3
ABOUT = """Run the official MCP conformance suites against Greenroom. Without LEG all of them run, in about a minute.

exit codes: 0 all is as tests/conformance/expected.toml says; 1 it is not; 3 there is no Node or no package registry"""


def main() -> int:
    names = [leg.name for leg in LEGS]
    parser = argparse.ArgumentParser(
        "./dev conformance", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"some of {', '.join(names)}")
    parser.add_argument("--url", help="a server that runs already, such as http://127.0.0.1:8000/mcp")
    parser.add_argument("--output", type=Path, help="keep what the suites write in this folder")
    given = parser.parse_args()
    if unknown := set(given.legs) - set(names):
        parser.error(f"no such leg: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    wanted = [leg for leg in LEGS if leg.name in given.legs or not given.legs]
    try:
        suites = fetched()
    except NotToBeHadError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return CANT_BE_HAD
    with tempfile.TemporaryDirectory(prefix="greenroom-conformance-") as folder, _server(given.url, folder) as server:
        url, tree = server
        results = _results(wanted, suites, url, given.output or Path(folder) / "results")
        wrong = problems(results, Expected.read(), every_leg=len(wanted) == len(LEGS)) + _restarts(tree)
    print(table(results))
    if said := complaints(results):
        print(f"\n{said}")
    print("\n" + ("\n".join(wrong) if wrong else "all is as it should be"))
    return 1 if wrong else 0


@contextmanager
def _server(url: str | None, folder: str) -> Iterator[tuple[str, Greenroom | None]]:
    """The endpoint to test; a tree of our own unless there is an address."""
    if url is not None:
        yield url, None
        return
    with started(Path(folder) / "data", "--tools", str(FIXTURE)) as tree:
        yield f"{tree.url}/mcp", tree


def _results(legs: list[Leg], suites: Suites, url: str, output: Path) -> Results:
    results: Results = {}
    for leg in legs:
        print(f"conformance: {leg.name}", file=sys.stderr)
        results[leg] = run_leg(leg, suites, url, output)
    return results


def _restarts(tree: Greenroom | None) -> list[str]:
    """No suite may cost a process its life."""
    if tree is None:
        return []
    return [f"{name} was restarted" for name, actor in tree.actors().items() if actor["restarts"]]


if __name__ == "__main__":
    sys.exit(main())
